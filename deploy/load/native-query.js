// Native queries over what setup wrote: an aggregate by customer (wide), one customer's
// percentile over time, and raw points.
import * as load from './common.js';

export const options = load.options(__ENV.QUERY_VUS || 4, load.queryFloors('native-query'));

const range = { relative: '1h' };
const queries = [
  () => ({ queryType: 'aggregate', metricName: 'api_latency', timeRange: range, filters: { region: 'eu-west-1' }, aggregation: 'avg', groupBy: ['customer_id'], orderBy: 'value', order: 'desc', limit: 10 }),
  () => ({ queryType: 'aggregate', metricName: 'api_latency', timeRange: range, filters: { customer_id: `c${__ITER % 2000}` }, aggregation: 'p95', interval: '5m' }),
  () => ({ queryType: 'range', metricName: 'api_latency', timeRange: range, filters: { customer_id: `c${__ITER % 2000}` } }),
];

export function setup() {
  load.seed();
}

export default function () {
  const i = __ITER % queries.length;
  load.nativeQuery(queries[i](), i === 0);
}

export function handleSummary(data) {
  return load.summary('native query', data);
}
