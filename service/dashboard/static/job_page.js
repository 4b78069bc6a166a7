/** One job: how far it is, what it tries, and what came out. */
import { Problem } from "./api.js";
import { Classes } from "./classes.js";
import { html, useEffect } from "./dom.js";
import { chosenPoint } from "./front.js";
import { LessMemory } from "./front_table.js";
import { Actions } from "./job_actions.js";
import { Attempts, Settings } from "./job_facts.js";
import { KeyFigures } from "./job_figures.js";
import { Log } from "./job_log.js";
import { Network } from "./job_network.js";
import { Stages } from "./job_stages.js";
import { Learning } from "./learning_chart.js";
import { Memory } from "./memory_chart.js";
import { OnDevice } from "./on_device.js";
import { useGrowing, usePolled } from "./polling.js";
import { jobPath } from "./routes.js";
import { StatusBadge } from "./status.js";
import { TimeAgo } from "./times.js";
import { isComplete } from "./trial_words.js";
import { Trials } from "./trials_chart.js";
import { TryIt } from "./try_it.js";
import { capitalized, isFinal } from "./words.js";

export function JobPage({ id }) {
  const path = jobPath(id);
  const { data: job, error, refresh } = usePolled(path, { seconds: 1.5 });
  useEffect(() => {
    document.title = `${job ? job.name : "Job"} · tinyfit`;
  }, [job?.name]);
  if (!job || (error instanceof Problem && error.status === 404)) {
    return html`<${Absent} error=${error} />`;
  }
  return html`<${Found} path=${path} job=${job} error=${error} refresh=${refresh} />`;
}

function Found({ path, job, error, refresh }) {
  const isLive = !isFinal(job.status);
  const events = useGrowing(`${path}/events`, { first: 0, isLive });
  const trials = useGrowing(`${path}/trials`, { first: -1, isLive });
  const { data: front } = usePolled(`${path}/front`, { seconds: isLive ? 2 : 60 });
  const best = bestTrial(trials ?? [], front);
  return html`
    <p class="back"><a href="#/jobs">All jobs</a></p>
    <div class="heading">
      <div class="title">
        <h1 tabindex="-1">${job.name}</h1>
        <${StatusBadge} job=${job} />
      </div>
      <${Actions} path=${path} job=${job} refresh=${refresh} />
    </div>
    <p class="hint under-heading">
      Created <${TimeAgo} at=${job.created_at} /> · <span class="id">${job.id}</span>
    </p>
    ${error instanceof Problem && html`<p class="banner bad" role="alert">${error.message}</p>`}
    ${job.error && html`<p class="banner bad">${capitalized(job.error)}</p>`}
    <${Stages} job=${job} />
    <${KeyFigures} job=${job} best=${best} trials=${trials ?? []} />
    <div class="columns">
      <div>
        <${Classes} path=${path} job=${job} />
        <${Trials} job=${job} trials=${trials ?? []} best=${best} front=${front} />
        <${LessMemory} job=${job} front=${front} />
        <${Learning} epochs=${epochsOf(events ?? [])} />
      </div>
      <div>
        <${TryIt} path=${path} job=${job} />
        <${OnDevice} path=${path} job=${job} />
        <${Memory} job=${job} best=${best} />
        <${Network} job=${job} best=${best} />
      </div>
    </div>
    ${events && html`<${Log} events=${events} />`}
    <${Attempts} path=${path} job=${job} />
    <${Settings} job=${job} />
  `;
}

function Absent({ error }) {
  if (error instanceof Problem && error.status === 404) {
    return html`
      <h1 tabindex="-1">There is no such job</h1>
      <p>It may have been deleted. <a href="#/jobs">See the jobs</a>.</p>
    `;
  }
  return html`
    <h1 tabindex="-1">Job</h1>
    ${
      error instanceof Problem
        ? html`<p class="banner bad" role="alert">${error.message}</p>`
        : html`<p class="hint" role="status">Loading…</p>`
    }
  `;
}

/** The trial that the search would choose: the front's choice where it is known, else the most
    accurate that was scored to the end, of equal ones the earliest. */
function bestTrial(trials, front) {
  const chosen = trials.find(({ number }) => number === chosenPoint(front)?.trial);
  return (
    chosen ??
    trials
      .filter(isComplete)
      .reduce(
        (best, trial) =>
          best === null || trial.validation_accuracy > best.validation_accuracy ? trial : best,
        null,
      )
  );
}

/** Epochs by training; one that was run again after a loss counts once, as it was last. */
function epochsOf(events) {
  const found = { tinytl: [], head_only: [] };
  for (const { kind, detail } of events) {
    if (kind === "epoch") (found[detail.training] ??= [])[detail.epoch] = detail;
  }
  for (const name of Object.keys(found)) found[name] = found[name].filter(Boolean);
  return found;
}
