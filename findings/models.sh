#!/bin/sh
# Texts that look like dates, read by Hugging Face datasets from JSON lines with a schema that calls them strings.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1
# Guessed:   with features={"id": Value("string")} given, the reader has no types left to guess: text stays text.
# Behaviour: features are applied after Arrow has guessed the column's type, and cast its time stamps to text.
#            So "2024-01-02" comes back as "2024-01-02 00:00:00", an offset from UTC is gone, and what a row reads
#            depends on the other rows: one id in the file that is no date, and all of them come back as written.
#            Declaring the column Json() does not help either: then texts that are JSON come back as its values.
# Seen:      see the here-document `expected`, which this script compares with.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1
cat > "$folder/expected" <<'EOF'
dates alone      ['2024-01-02 00:00:00', '2024-05-06 00:00:00']
with an offset   ['2024-01-02 10:11:12', '2024-05-06 05:08:09']
one other id     ['2024-01-02', '2024-05-06', 'zoo']
as Json()        ['2024-01-02', 12345, True, None]
EOF
cd "$folder"
HF_HOME="$folder/hub" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - > "$folder/seen" <<'EOF'
import json

from datasets import Features, Json, Value, disable_progress_bars, load_dataset

disable_progress_bars()


def read(name, ids, kind):
    with open(f"{name}.jsonl", "w") as lines:
        lines.writelines(json.dumps({"id": each}) + "\n" for each in ids)
    rows = load_dataset("json", data_files=f"{name}.jsonl", features=Features({"id": kind}), split="train")
    return [row["id"] for row in rows]


dates = ["2024-01-02", "2024-05-06"]
offsets = ["2024-01-02T10:11:12Z", "2024-05-06T07:08:09+02:00"]
print("dates alone     ", read("dates", dates, Value("string")))
print("with an offset  ", read("offsets", offsets, Value("string")))
print("one other id    ", read("mixed", [*dates, "zoo"], Value("string")))
print("as Json()       ", read("json", ["2024-01-02", "12345", "true", "null"], Json()))
EOF
diff "$folder/expected" "$folder/seen"
echo "as stated"
