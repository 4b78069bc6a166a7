/** What can be done with a job, as its status allows. */
import { download, request } from "./api.js";
import { ConfirmDialog } from "./confirm_dialog.js";
import { html, useLayoutEffect, useRef, useState } from "./dom.js";
import { formatBytes } from "./format.js";
import { forget } from "./polling.js";

const LABELS = {
  pause: "Pause",
  resume: "Resume",
  cancel: "Cancel",
  retry: "Retry",
};

/** What a task answers after which there is no job to show. */
const GONE = Symbol("gone");

export function Actions({ path, job, refresh }) {
  const [isBusy, setIsBusy] = useState(false);
  const [refusal, setRefusal] = useState(null);
  const [asked, setAsked] = useState(null);
  const group = useRef(null);
  useKeptFocus(group);

  const attempt = async (task) => {
    if (isBusy) return;
    setIsBusy(true);
    setRefusal(null);
    try {
      if ((await task()) === GONE) return;
    } catch (error) {
      setRefusal(error.message);
    }
    setIsBusy(false);
    refresh();
  };
  const act = (action) => attempt(() => request(`${path}/${action}`, { method: "POST" }));
  const remove = () =>
    attempt(async () => {
      await request(path, { method: "DELETE" });
      forget(path);
      forget("/jobs?");
      location.hash = "#/jobs";
      return GONE;
    });
  const press = (action) => (action in QUESTIONS ? setAsked(action) : act(action));
  const bundle = job.result?.checkpoint;
  // Not "disabled", which would take the focus away.
  const button = { type: "button", "aria-disabled": isBusy };
  return html`
    <div class="actions" ref=${group} role="group" aria-label="Actions" tabindex="-1">
      ${
        bundle &&
        html`<button
          key="download"
          ...${button}
          class="primary"
          onClick=${() => attempt(() => download(bundle.url))}
        >
          Download <span class="size">${formatBytes(bundle.bytes)}</span>
        </button>`
      }
      ${
        bundle &&
        html`<button
          key="onnx"
          ...${button}
          onClick=${() => attempt(() => download(`${path}/export/onnx`))}
        >
          Export ONNX
        </button>`
      }
      ${actionsOf(job).map(
        (action) => html`
          <button
            key=${action}
            ...${button}
            class=${action === "retry" ? "primary" : ""}
            onClick=${() => press(action)}
          >
            ${LABELS[action]}
          </button>
        `,
      )}
      <a key="duplicate" class="button" href=${`#/new?from=${job.id}`}>Duplicate</a>
      ${
        job.status !== "running" &&
        html`<button key="delete" ...${button} onClick=${() => press("delete")}>Delete</button>`
      }
      ${refusal && html`<p class="refusal" role="alert">${refusal}</p>`}
    </div>
    ${
      asked &&
      html`<${ConfirmDialog}
      ...${QUESTIONS[asked]}
      onCancel=${() => setAsked(null)}
      onConfirm=${() => {
        setAsked(null);
        if (asked === "delete") remove();
        else act(asked);
      }}
    />`
    }
  `;
}

const QUESTIONS = {
  cancel: {
    title: "Cancel this job?",
    text: "It ends within seconds. What is finished stays, and a retry goes on from there.",
    confirm: "Cancel the job",
    refuse: "Let it go on",
  },
  delete: {
    title: "Delete this job?",
    text: "Its record and its checkpoint are removed for good. The dataset stays.",
    confirm: "Delete for good",
    refuse: "Keep it",
  },
};

function actionsOf({ status, stop_request: asked }) {
  switch (status) {
    case "queued":
      return ["pause", "cancel"];
    case "running":
      if (asked === "cancel") return [];
      return asked === "pause" ? ["resume", "cancel"] : ["pause", "cancel"];
    case "paused":
      return ["resume", "cancel"];
    case "failed":
    case "cancelled":
      return ["retry"];
    default:
      return [];
  }
}

/** A button that had the focus and is gone leaves it to its group: who works by keyboard stays at
    the place. */
function useKeptFocus(group) {
  const focused = useRef(null);
  useLayoutEffect(() => {
    const element = group.current;
    const onFocus = ({ target }) => {
      focused.current = target;
    };
    const onBlur = ({ target, relatedTarget }) => {
      if (relatedTarget !== null && target.isConnected) focused.current = null;
    };
    element.addEventListener("focusin", onFocus);
    element.addEventListener("focusout", onBlur);
    return () => {
      element.removeEventListener("focusin", onFocus);
      element.removeEventListener("focusout", onBlur);
    };
  }, [group]);
  useLayoutEffect(() => {
    if (focused.current === null || focused.current.isConnected) return;
    focused.current = null;
    if (document.activeElement === document.body) group.current.focus({ preventScroll: true });
  });
}
