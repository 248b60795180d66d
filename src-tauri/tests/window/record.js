// Runs in the page as the body of a function: notes what the window hears, asks and shows, for the test to read.
const done = arguments[arguments.length - 1];
const tauri = window.__TAURI_INTERNALS__;
const record = { heard: [], asked: [], shown: [], clock: [], pressed: null };
window.__record = record;

// Every command leaves the page through `fetch`.
const send = window.fetch;
window.fetch = (url, options) => {
  const { body } = options ?? {};
  if (String(url).startsWith("ipc:")) {
    const command = decodeURIComponent(String(url).split("/").pop());
    record.asked.push({ command, parameters: typeof body === "string" ? JSON.parse(body) : null });
  }
  return send.call(window, url, options);
};

document.addEventListener(
  "click",
  (event) => {
    if (event.target.closest("[data-testid=create-session]")) record.pressed = performance.now();
  },
  true,
);

// When something comes or goes, and how many events were heard by then.
const watched = ["progress-modal", "locked-panes", "workbench", "file-tree", "terminal"];
const present = {};
function look() {
  for (const name of watched) {
    const is = document.querySelector(`[data-testid=${name}]`) !== null;
    if (is === (present[name] ?? false)) continue;
    present[name] = is;
    record.shown.push({ name, present: is, at: performance.now(), heard: record.heard.length });
  }
  const elapsed = document.querySelector("[data-testid=progress-elapsed]")?.textContent;
  if (elapsed !== undefined && elapsed !== record.clock.at(-1)) record.clock.push(elapsed);
}
look();
new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });

const listening = ["session:progress", "session:ready", "session:failed", "session:cancelled", "session:export"].map((name) =>
  tauri.invoke("plugin:event|listen", {
    event: name,
    target: { kind: "Any" },
    handler: tauri.transformCallback(({ payload }) => record.heard.push({ name, at: performance.now(), payload })),
  }),
);
Promise.all(listening).then(() => done(null), (error) => done(String(error)));
