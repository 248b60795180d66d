#!/bin/sh
# Takes pictures of the window's states into the folder named first, by a headless Chromium.
# usage: dev/shots.sh FOLDER [SCENE...]; SIZE=900,600 and SCHEME=light change the view. `npm run harness` must run.
set -eu
folder=$1
shift
mkdir -p "$folder"
scheme=${SCHEME:-dark}
for scene in "$@"; do
  chromium --headless --no-sandbox --disable-gpu --use-gl=swiftshader --enable-unsafe-swiftshader \
    --disable-background-networking --hide-scrollbars \
    --blink-settings=preferredColorScheme=$([ "$scheme" = dark ] && echo 0 || echo 1) \
    --window-size="${SIZE:-1280,800}" --virtual-time-budget=9000 \
    --screenshot="$folder/$scene-$scheme.png" "http://127.0.0.1:1421/?scene=$scene" >/dev/null 2>&1
  echo "$folder/$scene-$scheme.png"
done
