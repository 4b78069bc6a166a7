/** The chosen network: its blocks by stage, and how a training step is carried out. */
import { html } from "./dom.js";
import { METHODS, planSentences } from "./words.js";

export function Network({ job, best }) {
  const chosen = job.result ?? best;
  if (!chosen) return null;
  const stages = blocksByStage(chosen.subnet, job.stage_depths);
  const numBlocks = stages.flat().length;
  return html`
    <section class="card" aria-labelledby="network-title">
      <h2 id="network-title">${job.result ? "The chosen network" : "The best network so far"}</h2>
      <p class="hint">
        ${chosen.resolution} × ${chosen.resolution}\u00a0px input, ${numBlocks} elastic blocks.
        Each shows its kernel size and, in width, its expand ratio.
        ${describeTraining(chosen.method, best?.lite_residual)}
      </p>
      <ol class="network">
        ${stages.map(
          (blocks, stage) => html`
            <li key=${stage}>
              <span class="stage-name">Stage ${stage + 1}</span>
              <ol>
                ${blocks.map(
                  ({ kernelSize, expandRatio }, index) => html`
                    <li key=${index} class=${`block expand-${expandRatio} kernel-${kernelSize}`}>
                      ${kernelSize}×${kernelSize}
                      <span><span class="hidden">, expand ratio </span>×${expandRatio}</span>
                    </li>
                  `,
                )}
              </ol>
            </li>
          `,
        )}
      </ol>
      <h3>A training step</h3>
      <ul class="plan">
        ${planSentences(chosen.plan, chosen.resolution).map(
          (text) => html`<li key=${text}>${text}</li>`,
        )}
      </ul>
    </section>
  `;
}

function describeTraining(method, lite) {
  const trained = ` Its training changes ${METHODS[method]}.`;
  if (!lite) return trained;
  const { groups, max_kernel_size: size } = lite;
  return `${trained} The modules have ${groups} groups and kernels of up to ${size}×${size}.`;
}

/** Kernel sizes and expand ratios stand block by block for stages of full depth; one more, where
    there is one, is a last stage of a single block. fullDepths: null for stages of one depth. */
export function blocksByStage({ kernel_sizes: sizes, expand_ratios: ratios, depths }, fullDepths) {
  const block = (index) => ({ kernelSize: sizes[index], expandRatio: ratios[index] });
  const equal = Math.floor(sizes.length / depths.length);
  let first = 0;
  const stages = depths.map((depth, stage) => {
    const blocks = Array.from({ length: depth }, (_, index) => block(first + index));
    first += fullDepths?.[stage] ?? equal;
    return blocks;
  });
  return sizes.length > first ? [...stages, [block(first)]] : stages;
}
