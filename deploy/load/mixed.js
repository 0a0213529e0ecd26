// Mixed: writers at a steady rate, and readers of both kinds beside them.
import * as load from './common.js';

const duration = __ENV.DURATION || '20s';
const floor = Number(__ENV.FLOOR_MIXED || __ENV.FLOOR_METRICS || 10000);
const batch = Number(__ENV.BATCH || 500);

export const options = {
  summaryTrendStats: load.options(1, {}).summaryTrendStats,
  scenarios: {
    // A tenth above the floor, so that the floor is reached at a steady rate.
    writers: {
      executor: 'constant-arrival-rate', exec: 'writer', rate: Math.ceil((1.1 * floor) / batch), timeUnit: '1s', duration,
      preAllocatedVUs: 8, maxVUs: 64,
    },
    native: { executor: 'constant-vus', exec: 'native', vus: 1, duration },
    promql: { executor: 'constant-vus', exec: 'prom', vus: 1, duration },
  },
  thresholds: {
    metrics_written: [`rate>=${floor}`],
    request_errors: ['rate==0'],
    'http_req_duration{name:native-write}': [`p(95)<${__ENV.FLOOR_WRITE_P95 || 500}`],
    'http_req_duration{name:native-query}': [`p(95)<${__ENV.FLOOR_QUERY_P95 || 100}`],
    'http_req_duration{name:promql}': [`p(95)<${__ENV.FLOOR_QUERY_P95 || 100}`],
  },
};

export function setup() {
  load.seed();
}

export function writer() {
  load.write(batch, __ITER);
}

export function native() {
  load.nativeQuery({ queryType: 'aggregate', metricName: 'api_latency', timeRange: { relative: '1h' }, filters: { customer_id: `c${__ITER % 2000}` }, aggregations: ['avg', 'p95'], groupBy: ['region'] });
}

export function prom() {
  load.promQL(`avg by (region) (api_latency{customer_id="c${__ITER % 2000}"})`);
}

export function handleSummary(data) {
  return load.summary('mixed', data);
}
