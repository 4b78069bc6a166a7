/** The memory-accuracy front, as GET /jobs/{id}/front has it: what accuracy can be had from how
    much training memory on. Its points rise in memory and never fall in accuracy. */

/** Shares of the limit of which people want to know what they would give. */
const SHARES = [0.75, 0.5, 0.25];

export const chosenPoint = (front) => front?.points.find((point) => point.is_chosen) ?? null;

/** The corners of the front's line, out to `endBytes`: each accuracy holds up to the next. */
export function staircase({ points }, endBytes) {
  const corners = points.map((point) => ({
    bytes: point.peak_bytes,
    accuracy: point.validation_accuracy,
  }));
  const last = corners.at(-1);
  if (last && last.bytes < endBytes) corners.push({ ...last, bytes: endBytes });
  return corners;
}

/** The best point, the best within each share of the limit, and the leanest, each once:
    { point, share }. share: null of the first and of the leanest. */
export function cheaper({ points, limit_bytes: limit }) {
  const rows = points.slice(-1).map((point) => ({ point, share: null }));
  const add = (point, share) => {
    if (point && rows.every((row) => row.point !== point)) rows.push({ point, share });
  };
  for (const share of SHARES) add(bestWithin(points, share * limit), share);
  add(points[0], null);
  return rows;
}

/** The largest share of the limit in which nothing fits at all; null where there is none. */
export const hopelessShare = ({ limit_bytes: limit, smallest }) =>
  SHARES.find((share) => share * limit < smallest.peak_bytes) ?? null;

const bestWithin = (points, bytes) => points.findLast((point) => point.peak_bytes <= bytes);
