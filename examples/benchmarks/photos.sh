#!/usr/bin/env bash
# More photos for the EfficientNet-Lite0 task, from Debian's packages and one of PyPI's, unpacked and not installed.
# Leaves .cache/photos beside this script; needs apt-get, dpkg-deb, pip, unzip and python3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into="$here/.cache/photos"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$into"
cd "$work"
apt-get download plasma-workspace-wallpapers mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \
  palapeli-data opencv-doc gcompris-qt-data
for package in *.deb; do
  dpkg-deb -x "$package" .
done
pip download --quiet --no-deps foolbox==3.3.4
unzip -q foolbox-*.whl 'foolbox/data/imagenet_*.jpg'

# The photos among them; the rest is drawn or rendered.
for name in BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey OneStandsOut Path summer_1am; do
  largest=$(find "usr/share/wallpapers/$name/contents/images" -type f -size +10k -printf '%s %p\n' | sort -n | tail -n 1)
  cp "${largest#* }" "$into/$name.${largest##*.}"
done
for name in Aqua Blinds Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings Wood YellowFlower; do
  cp "usr/share/backgrounds/mate/nature/$name.jpg" "$into/$name.jpg"
done
for name in Bridge Dragonfly Kleiber Picture_0B Picture_1A Wine aitzgorri free friends greentock life picosdeeuropa \
  seeding sunset; do
  cp "usr/share/backgrounds/${name}_by_"*.jpg "$into/lomiri-$name.jpg"
done
for name in castle-maintenon cincinnati-bridge citrus-fruits european-honey-bee panther-chameleon-female; do
  cp "usr/share/palapeli/collection/$name.jpg" "$into/palapeli-$name.jpg"
done
for path in alphamat/input_images/plant.jpg data/aero1.jpg data/aloeL.jpg data/apple.jpg data/baboon.jpg \
  data/basketball1.png data/board.jpg data/box_in_scene.png data/building.jpg data/butterfly.jpg data/chicky_512.png \
  data/fruits.jpg data/graf1.png data/home.jpg data/left.jpg data/leuvenA.jpg data/licenseplate_motion.jpg \
  data/messi5.jpg data/orange.jpg data/rubberwhale1.png data/smarties.png data/squirrel_cls.jpg data/sudoku.png \
  dnn_superres/butterfly.png hfs/data/000.jpg; do
  cp "usr/share/doc/opencv-doc/examples/$path" "$into/opencv-${path//\//-}"
done
for path in foolbox/data/imagenet_*.jpg; do
  cp "$path" "$into/foolbox-${path##*/}"
done

# GCompris keeps its photos as WebP inside Qt's resource files, uncompressed. Left out: a drawing, and the monuments of
# "categorization", some of which are those of "explore_monuments" again.
python3 - usr/share/gcompris-qt/rcc "$into" <<'END'
import re
import sys
from pathlib import Path

source, into = map(Path, sys.argv[1:])
names = "categorization erase explore_farm_animals explore_monuments explore_world_animals explore_world_music"
left_out = {"categorization-67", *(f"categorization-{number}" for number in range(97, 124))}
for name in names.split():
    packed = (source / f"{name}.rcc").read_bytes()
    for number, found in enumerate(re.finditer(b"RIFF(....)WEBP", packed, re.DOTALL)):
        photo = packed[found.start() : found.start() + 8 + int.from_bytes(found[1], "little")]
        if f"{name}-{number}" not in left_out:
            (into / f"gcompris-{name}-{number}.webp").write_bytes(photo)
END
ls "$into" | wc -l
