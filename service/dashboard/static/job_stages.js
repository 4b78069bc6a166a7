/** The five stages as steps, how far the job is in all, and how long it will take. */
import { html } from "./dom.js";
import { Elapsed, TimeLeft } from "./times.js";
import { STAGES } from "./words.js";

export function Stages({ job }) {
  const isDone = job.status === "succeeded";
  const at = isDone ? STAGES.length : STAGES.findIndex(({ id }) => id === job.stage);
  return html`
    <section class="card stages" aria-label="Progress">
      <ol class="steps">
        ${STAGES.map((stage, index) => {
          const state = index < at ? "done" : index === at ? "now" : "ahead";
          return html`
            <li
              key=${stage.id}
              class=${`${state} ${job.status}`}
              aria-current=${state === "now" ? "step" : undefined}
            >
              <span class="mark" aria-hidden="true">${state === "done" ? "✓" : index + 1}</span>
              <span>${stage.name}</span>
              ${state === "done" && html`<span class="hidden">, done</span>`}
            </li>
          `;
        })}
      </ol>
      ${
        !isDone &&
        html`<progress
          value=${job.progress}
          max="1"
          aria-label="Progress of the whole job"
        ></progress>`
      }
      <p class="hint line">
        <span>${sentence(job, STAGES[at])}</span>
        <span class="times">
          ${!isDone && html`<span>${Math.floor(100 * job.progress)}%</span>`}
          ${
            job.started_at &&
            html`<span>
            ${isDone ? "took " : ""}<${Elapsed} from=${job.started_at} until=${job.finished_at} />
          </span>`
          }
          ${
            job.estimated_finish_at &&
            html`<strong><${TimeLeft} finishAt=${job.estimated_finish_at} /></strong>`
          }
        </span>
      </p>
    </section>
  `;
}

function sentence(job, stage) {
  switch (job.status) {
    case "queued":
      return job.attempt > 0
        ? "Waits for a worker, to go on where it was."
        : "Waits for a worker.";
    case "running":
      if (job.stop_request === "cancel") return "Its worker is asked to cancel.";
      if (job.stop_request === "pause") return "Its worker is asked to pause.";
      return stage?.doing ?? "A worker has taken it.";
    case "paused":
      return "Paused; what is finished stays.";
    case "succeeded":
      return "The checkpoint is ready.";
    case "failed":
      return stage ? `Failed in the stage ${stage.name}.` : "Failed.";
    default:
      return "Cancelled; what is finished stays.";
  }
}
