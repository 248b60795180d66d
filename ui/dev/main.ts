// `?scene=NAME` sets the stage, plays what a user would press, and leaves the window as it is then.
// `&axe` checks it for accessibility and writes what was found into `<pre id="axe">`.

import { Backend } from "./backend";
import { SCENES } from "./scenes";

const query = new URLSearchParams(location.search);
const scene = SCENES[query.get("scene") ?? "live"];
if (!scene) throw new Error(`scenes: ${Object.keys(SCENES).join(", ")}`);

sessionStorage.clear();
localStorage.clear();
const backend = new Backend();
scene.stage?.(backend);
backend.install();
await import("../src/main");
await backend.settle();
await scene.play?.(backend);

if (query.has("axe")) {
  const { default: axe } = await import("axe-core");
  await new Promise((done) => setTimeout(done, 600));
  const { violations } = await axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
  });
  const found = document.createElement("pre");
  found.id = "axe";
  found.textContent = violations
    .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 200)} ${node.any[0]?.message ?? ""}`))
    .join("\n");
  document.body.append(found);
}
