// The form of a new session: what is typed, what was wrong with it, and one request at a time.

import type { ErrorReport } from "../bindings/ErrorReport";
import type { ImageView } from "../bindings/ImageView";
import type { TemplateCard } from "../bindings/TemplateCard";
import type * as commands from "../lib/ipc/commands";
import { problemsOf, reportOf } from "../lib/ipc/error";

const FIELDS = ["project_name", "workspace_id", "template", "image", "description"] as const;

export class NewSession {
  open = $state(false);
  template = $state("");
  image = $state("");
  projectName = $state("");
  workspaceId = $state("default");
  description = $state("");

  problems = $state.raw<Record<string, string>>({});
  /** What went wrong that belongs to no field. */
  failure = $state.raw<ErrorReport | null>(null);
  submitting = $state(false);

  templates = $state.raw<TemplateCard[]>([]);
  images = $state.raw<ImageView[]>([]);

  readonly #commands: Pick<typeof commands, "listTemplates" | "listImages">;

  constructor(formCommands: Pick<typeof commands, "listTemplates" | "listImages">) {
    this.#commands = formCommands;
  }

  readonly chosen = $derived.by(() => this.templates.find((template) => template.id === this.template));
  readonly imageTyped = $derived.by(() => this.image.trim() !== "");
  readonly imageName = $derived.by(() => this.image.trim() || (this.chosen?.image_name ?? ""));

  /** Reads the templates, so that the dialog opens complete. */
  async prepare(): Promise<void> {
    if (this.templates.length > 0) return;
    try {
      this.templates = await this.#commands.listTemplates();
    } catch (thrown) {
      this.failure = reportOf(thrown);
    }
    if (!this.chosen) this.template = (this.templates.find((card) => card.built_in) ?? this.templates[0])?.id ?? "";
  }

  /** Opens with what was typed before, if that never became a session. */
  async show(workspace?: string): Promise<void> {
    if (this.open) return;
    this.open = true;
    this.failure = null;
    this.problems = {};
    if (workspace !== undefined) this.workspaceId = workspace;
    await Promise.all([this.prepare(), this.#suggestImages()]);
  }

  close(): void {
    this.open = false;
  }

  onEngine(image: string): boolean {
    return this.images.some((known) => known.image_name === image);
  }

  /** Sends the request. A second press does nothing, nor one on a dialog that is just closing. */
  async submit(create: (request: commands.CreateRequest, imageName: string) => Promise<unknown>): Promise<void> {
    if (this.submitting || !this.open) return;
    this.submitting = true;
    this.failure = null;
    this.problems = {};
    try {
      await create(this.#request(), this.imageName);
      this.open = false;
      this.image = "";
      this.projectName = "";
      this.description = "";
    } catch (thrown) {
      const failure = reportOf(thrown);
      this.problems = problemsOf(failure);
      const placed = FIELDS.some((field) => field in this.problems);
      this.failure = placed ? null : failure;
    } finally {
      this.submitting = false;
    }
  }

  /** Images are suggestions: without them the field still takes any reference. */
  async #suggestImages(): Promise<void> {
    try {
      this.images = await this.#commands.listImages();
    } catch {
      this.images = [];
    }
  }

  #request(): commands.CreateRequest {
    return {
      workspace_id: this.workspaceId,
      ...(this.imageTyped ? { image: this.image.trim() } : this.template === "" ? {} : { template: this.template }),
      ...(this.projectName.trim() === "" ? {} : { project_name: this.projectName.trim() }),
      ...(this.description.trim() === "" ? {} : { description: this.description.trim() }),
    };
  }
}
