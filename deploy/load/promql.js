// PromQL instant queries over what setup wrote.
import * as load from './common.js';

export const options = load.options(4, {
  request_errors: ['rate==0'],
  'http_req_duration{name:promql}': [`p(95)<${__ENV.FLOOR_QUERY_P95 || 100}`],
});

const queries = [
  () => `api_latency{customer_id="c${__ITER % 2000}"}`,
  () => 'sum by (region) (rate(api_latency{endpoint="/api/v1/items/3"}[5m]))',
  () => 'topk(10, avg by (customer_id) (api_latency{region="eu-west-1"}))',
];

export function setup() {
  load.seed();
}

export default function () {
  load.promQL(queries[__ITER % queries.length]());
}

export function handleSummary(data) {
  return load.summary('PromQL', data);
}
