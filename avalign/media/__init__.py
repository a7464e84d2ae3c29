"""Images, audio and video from files, on one clock."""
