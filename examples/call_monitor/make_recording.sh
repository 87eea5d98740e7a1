#!/bin/sh
# Makes call.wav and call.lab, the recorded call that this example plays. They are committed: run
# this only to change them. It needs sox, pip and awk (Debian: apt-get install sox).
#
# The caller is a reader of LibriVox, in three clips that PocketSphinx ships as test data, each with
# a .lab file that says where its speech begins and ends. In the gaps the other side talks, which a
# recording of the caller's line does not hold: only the noise of the line is heard.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The source distribution alone holds the test data, so its binary wheels are no use here.
pip download --quiet --no-deps --no-binary pocketsphinx --dest . 'pocketsphinx==5.1.1'
tar xzf pocketsphinx-5.1.1.tar.gz
clips=pocketsphinx-5.1.1/test/data/librivox

# silence SECONDS: a gap, in which the other side talks.
silence() {
    sox -D -n -r 8000 -c 1 -b 16 "part$parts.wav" trim 0 "$1"
    append
}

# say CLIP WORDS: speech as a telephone passes it, 300 to 3400 Hz, and a line of the label file,
# with the clip's own labels (first line: speech begins, second: it ends) moved to where it lands.
say() {
    clip=$clips/sense_and_sensibility_01_austen_64kb-$1
    sox -D "$clip.wav" -r 8000 -b 16 "part$parts.wav" gain -n -6 rate -v 8000 sinc 300-3400
    awk -v at="$position" -v words="$2" '
        NR == 1 { begin = at + $1 }
        NR == 2 { printf "%.3f\t%.3f\t%s\n", begin, at + $1, words }' "$clip.lab" >> call.lab
    append
}

append() {
    position=$(awk -v at="$position" -v more="$(soxi -D "part$parts.wav")" 'BEGIN { print at + more }')
    parts=$((parts + 1))
}

parts=0 position=0
silence 1.2
say 0880 'he was not an ill disposed young man'
silence 2.4
say 0890 'unless to be rather cold hearted and rather selfish is to be ill disposed'
silence 2.0
say 0930 'he might even have been made amiable himself'
silence 1.5

# The line: noise in the telephone band, some 50 dB below full scale, then G.711 (mu-law), which
# every call through the telephone network has been through.
sox -D part?.wav speech.wav
sox -D -R -n -r 8000 -c 1 -b 16 noise.wav \
    synth "$(soxi -D speech.wav)" pinknoise sinc 300-3400 gain -n -40
sox -D -m -v 1 speech.wav -v 1 noise.wav -e mu-law -b 8 line.wav
sox -D line.wav -e signed-integer -b 16 call.wav

cp call.wav call.lab "$here"
soxi "$here/call.wav"
cat "$here/call.lab"
