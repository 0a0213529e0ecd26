// PromQL instant queries over what setup wrote; the last of them is wide.
import * as load from './common.js';

export const options = load.options(__ENV.QUERY_VUS || 4, load.queryFloors('promql'));

const queries = [
  () => `api_latency{customer_id="c${__ITER % 2000}"}`,
  () => 'sum by (region) (rate(api_latency{endpoint="/api/v1/items/3"}[5m]))',
  () => 'topk(10, avg by (customer_id) (api_latency{region="eu-west-1"}))',
];

export function setup() {
  load.seed();
}

export default function () {
  const i = __ITER % queries.length;
  load.promQL(queries[i](), i === 2);
}

export function handleSummary(data) {
  return load.summary('PromQL', data);
}
