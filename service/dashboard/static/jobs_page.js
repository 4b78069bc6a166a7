/** The list of jobs, newest first. */
import { html, useEffect } from "./dom.js";
import { formatBytes, formatPercent } from "./format.js";
import { remember, usePolled } from "./polling.js";
import { jobAddress, jobPath, jobsAddress } from "./routes.js";
import { StatusBadge } from "./status.js";
import { Elapsed, TimeAgo, TimeLeft } from "./times.js";
import { STAGES, STATUSES, capitalized } from "./words.js";

const PAGE = 25;

export function JobsPage({ parameters }) {
  const status = parameters.get("status") ?? "";
  const cursor = parameters.get("cursor") ?? "";
  const query = new URLSearchParams({ limit: PAGE });
  if (status) query.set("status", status);
  if (cursor) query.set("cursor", cursor);
  const { data: jobs, link, error } = usePolled(`/jobs?${query}`);
  useEffect(() => {
    document.title = "Jobs · tinyfit";
  }, []);
  useEffect(() => {
    for (const job of jobs ?? []) remember(jobPath(job.id), job);
  }, [jobs]);
  const older = nextCursor(link);
  return html`
    <div class="heading">
      <h1 tabindex="-1">Jobs</h1>
      <a class="button primary" href="#/new">New job</a>
    </div>
    ${error && error.status && html`<p class="banner bad" role="alert">${error.message}</p>`}
    <${Filter} status=${status} />
    ${
      jobs === undefined
        ? !error && html`<p class="hint" role="status">Loading…</p>`
        : jobs.length > 0
          ? html`<${Table} jobs=${jobs} />`
          : html`<${Empty} status=${status} isFirstPage=${!cursor} />`
    }
    ${
      (older || cursor) &&
      html`<nav class="paging" aria-label="Pages">
      ${cursor && html`<a class="button" href=${jobsAddress({ status })}>Newest</a>`}
      ${older && html`<a class="button" href=${jobsAddress({ status, cursor: older })}>Older</a>`}
    </nav>`
    }
  `;
}

function Filter({ status }) {
  return html`
    <nav class="filter" aria-label="Filter by status">
      ${["", ...STATUSES].map(
        (value) => html`
          <a
            key=${value}
            href=${jobsAddress({ status: value })}
            aria-current=${value === status ? "true" : undefined}
            >${value ? capitalized(value) : "All"}</a
          >
        `,
      )}
    </nav>
  `;
}

/* The roles are said, as a narrow window shows the rows as cards, which would take them away. */
function Table({ jobs }) {
  const heads = [
    "Name",
    "Status",
    "Progress",
    "Limit",
    "Measured peak",
    "Test accuracy",
    "Created",
  ];
  return html`
    <table class="jobs" role="table" aria-label="Jobs, newest first">
      <thead role="rowgroup">
        <tr role="row">
          ${heads.map(
            (head) => html`<th key=${head} role="columnheader" scope="col">${head}</th>`,
          )}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${jobs.map((job) => html`<${Row} key=${job.id} job=${job} />`)}
      </tbody>
    </table>
  `;
}

function Row({ job }) {
  const { result } = job;
  return html`
    <tr role="row">
      <td role="cell" class="name"><a href=${jobAddress(job.id)}>${job.name}</a></td>
      <td role="cell"><${StatusBadge} job=${job} /></td>
      <td role="cell" class="progress"><${Progress} job=${job} /></td>
      <td role="cell" class="number" data-head="Limit">
        <span>${formatBytes(job.memory_limit_bytes)}</span>
      </td>
      <td role="cell" class="number" data-head="Measured peak">
        ${result ? html`<span>${formatBytes(result.measured_peak_bytes ?? result.predicted_peak_bytes)}</span>` : nothing()}
      </td>
      <td role="cell" class="number" data-head="Test accuracy">
        ${result ? html`<span>${formatPercent(result.headline_accuracy ?? result.test_accuracy)}</span>` : nothing()}
      </td>
      <td role="cell" class="number" data-head="Created"><${TimeAgo} at=${job.created_at} /></td>
    </tr>
  `;
}

const nothing = () => html`<span class="nothing">–</span>`;

function Progress({ job }) {
  if (job.status === "failed") return html`<span class="error-line">${job.error}</span>`;
  if (job.status === "succeeded") {
    return html`<span class="hint">
      took <${Elapsed} from=${job.started_at} until=${job.finished_at} />
    </span>`;
  }
  if (job.status === "queued" && job.priority !== "normal") {
    return html`<span class="hint">${capitalized(job.priority)} priority</span>`;
  }
  if (job.status !== "running" && job.status !== "paused") return nothing();
  const stage = STAGES.find(({ id }) => id === job.stage);
  const label = `Progress of ${job.name}`;
  return html`
    <progress value=${job.progress} max="1" aria-label=${label}></progress>
    <span class="hint">
      ${Math.floor(100 * job.progress)}%${stage && ` · ${stage.name}`}
      ${job.estimated_finish_at && html` · <${TimeLeft} finishAt=${job.estimated_finish_at} />`}
    </span>
  `;
}

function Empty({ status, isFirstPage }) {
  if (status || !isFirstPage) {
    return html`
      <div class="empty">
        <p>${status ? `No job is ${status}.` : "No older jobs."}</p>
        <p><a href="#/jobs">See all jobs</a></p>
      </div>
    `;
  }
  return html`
    <div class="empty">
      <h2>No jobs yet</h2>
      <p>
        Give tinyfit images in a folder per class and the memory that your device can spare for
        training. It finds the network that classifies them best within that limit.
      </p>
      <p><a class="button primary" href="#/new">Make the first job</a></p>
    </div>
  `;
}

/** The cursor of the page after this one, from the Link header. */
function nextCursor(link) {
  const next = /<([^>]+)>;\s*rel="next"/.exec(link ?? "");
  return next ? new URL(next[1], location.origin).searchParams.get("cursor") : null;
}
