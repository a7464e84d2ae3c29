const all=what=>[...document.querySelectorAll(what)],selects=all("select"),cards=all("article");
function choose(){
  let shown=0;
  for(const card of cards){
    card.hidden=!selects.every(s=>!s.value||card.dataset[s.dataset.filter]===s.value);
    shown+=!card.hidden;
  }
  for(const part of all("section"))part.hidden=!part.querySelector("article:not([hidden])");
  document.querySelector("output").textContent=shown+" of "+cards.length+" shown";
}
for(const s of selects)s.addEventListener("change",choose);
choose();
for(const player of all("audio")){
  const line=player.closest("article").querySelector(".now");
  const move=()=>{line.style.left=100*player.currentTime/player.dataset.seconds+"%";
    if(!player.paused)requestAnimationFrame(move)};
  for(const event of ["play","seeked","timeupdate"])player.addEventListener(event,move);
}
