#!/usr/bin/env bash
# More photos for the EfficientNet-Lite0 task, from two Debian packages that are unpacked and not installed.
# Leaves .cache/photos beside this script; needs apt-get and dpkg-deb.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into="$here/.cache/photos"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$into"
cd "$work"
apt-get download plasma-workspace-wallpapers mate-backgrounds
for package in *.deb; do
  dpkg-deb -x "$package" .
done
# The photos among them; the rest is drawn or rendered.
for name in BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey OneStandsOut Path summer_1am; do
  largest=$(find "usr/share/wallpapers/$name/contents/images" -type f -size +10k -printf '%s %p\n' | sort -n | tail -n 1)
  cp "${largest#* }" "$into/$name.${largest##*.}"
done
for name in Aqua Blinds Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings Wood YellowFlower; do
  cp "usr/share/backgrounds/mate/nature/$name.jpg" "$into/$name.jpg"
done
ls "$into" | wc -l
