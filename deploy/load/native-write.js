// Native writes: BATCH metrics a request, as fast as the VUs can.
import * as load from './common.js';

const floor = __ENV.FLOOR_METRICS || '10000'; // 100000 on ClickHouse, for each process

export const options = load.options(__ENV.WRITE_VUS || 4, {
  metrics_written: [`rate>=${floor}`],
  request_errors: ['rate==0'],
  'http_req_duration{name:native-write}': [`p(95)<${__ENV.FLOOR_WRITE_P95 || 500}`],
});

export default function () {
  load.write(Number(__ENV.BATCH || 500), __ITER);
}

export function handleSummary(data) {
  return load.summary('native write', data);
}
