#!/bin/sh
# Makes FOLDER/mosquitto, which runs an MQTT broker: the one that is installed, or else Debian's
# packages, downloaded and unpacked into FOLDER without installing anything. Needs no root.
set -eu
folder=$1
[ -x "$folder/mosquitto" ] && exit 0
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

runner() { # the last step: an interrupted set-up is done again
    printf '#!/bin/sh\n%sexec "%s" "$@"\n' "$1" "$2" >"$folder/.mosquitto"
    chmod +x "$folder/.mosquitto"
    mv "$folder/.mosquitto" "$folder/mosquitto"
}

if found=$(PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" command -v mosquitto); then
    runner "" "$found"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "the tests need an MQTT broker: install mosquitto, and run this again" >&2
    exit 1
fi

# Lists and archives of our own, since those of the system may be empty, and belong to root.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
mkdir -p "$cache/lists/partial" "$cache/archives/partial"
apt() {
    apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Acquire::Retries=3 \
        -o Dir::State::lists="$cache/lists" -o Dir::Cache="$cache" "$@"
}
apt update
apt --yes --download-only --no-install-recommends install mosquitto
for package in "$cache"/archives/*.deb; do
    dpkg -x "$package" "$folder"
done
libraries=$(find "$folder" -name '*.so.*' -exec dirname {} \; | sort -u | paste -sd: -)
runner "LD_LIBRARY_PATH=\"$libraries\" " "$folder/usr/sbin/mosquitto"
