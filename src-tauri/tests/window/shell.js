// Runs in the page as the body of a function: opens a terminal whose output goes to the test and not to a screen. The
// bytes are kept as the web view received them, and acknowledged.
const [id, done] = arguments;
const tauri = window.__TAURI_INTERNALS__;
const shell = { bytes: new Uint8Array(64 << 20), length: 0, exit: null, terminal: null, acknowledged: 0, asking: false };
window.__shell = shell;

function acknowledge() {
  if (shell.asking || shell.terminal === null || shell.acknowledged === shell.length) return;
  shell.asking = true;
  const bytes = shell.length;
  tauri.invoke("ack_terminal", { id, terminal_id: shell.terminal, bytes }).then(() => {
    shell.asking = false;
    shell.acknowledged = bytes;
    acknowledge();
  });
}

function take(message) {
  if (message !== null && typeof message === "object" && "exit" in message) {
    shell.exit = message.exit;
    return;
  }
  if (message !== null && typeof message === "object" && "pause" in message) return;
  const bytes = new Uint8Array(message);
  shell.bytes.set(bytes, shell.length);
  shell.length += bytes.length;
  acknowledge();
}

// Messages are numbered, because a large one may be overtaken.
const order = { next: 0, early: new Map() };
const channel = tauri.transformCallback((raw) => {
  if ("end" in raw) return;
  order.early.set(raw.index, raw.message);
  while (order.early.has(order.next)) {
    take(order.early.get(order.next));
    order.early.delete(order.next);
    order.next += 1;
  }
});
tauri.invoke("open_terminal", { id, cols: 80, rows: 24, on_output: `__CHANNEL__:${channel}` }).then(
  (answer) => {
    shell.terminal = answer.terminal_id;
    acknowledge();
    done([answer]);
  },
  (error) => done([error]),
);
