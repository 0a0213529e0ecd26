// Shared by the load scripts: where the server is, how a request is made, and how
// the figures and floors are told at the end.
import http from 'k6/http';
import { check } from 'k6';
import { Counter, Rate } from 'k6/metrics';

export const base = __ENV.LUMINATE_URL || 'http://127.0.0.1:8080';
export const tenant = __ENV.LUMINATE_TENANT || 'load';
const token = __ENV.LUMINATE_TOKEN || '';

export const metrics = new Counter('metrics_written');
export const errors = new Rate('request_errors');

const regions = ['eu-west-1', 'us-east-1', 'us-west-2', 'ap-south-1'];

export function headers(contentType) {
  const h = { 'Content-Type': contentType, 'X-Scope-OrgID': tenant };
  if (token) h.Authorization = `Bearer ${token}`;
  return h;
}

// Bodies of the VU, made once: of a generator on the same cores the server would get
// what is left. Only the time is put in anew.
const bodies = new Map();

// batch returns the turn-th n metrics of 2,000 customers, as JSON. A VU has its own
// source, so that its metrics are its own series.
function batch(n, turn) {
  const key = `${n}/${turn % Math.ceil(2000 / n)}`;
  if (!bodies.has(key)) {
    const list = [];
    for (let i = 0; i < n; i++) {
      list.push({
        name: 'api_latency', timestamp: '@', value: Math.round(1000 * Math.random()) / 10,
        dimensions: { source: `vu-${__VU}`, customer_id: `c${(turn * n + i) % 2000}`, region: regions[i % 4], endpoint: `/api/v1/items/${i % 17}` },
      });
    }
    bodies.set(key, JSON.stringify({ metrics: list }));
  }
  return bodies.get(key).replaceAll('"@"', String(Date.now()));
}

export function write(n, turn) {
  const r = http.post(`${base}/api/v1/write`, batch(n, turn), {
    headers: headers('application/json'), tags: { name: 'native-write' },
  });
  const ok = check(r, { 'write acknowledged': (x) => x.status === 200 });
  note(ok, r);
  if (ok) metrics.add(n);
}

let complained = false;

// note counts an answer, and tells the first error of each VU.
function note(ok, r) {
  errors.add(!ok);
  if (ok || complained) return;
  complained = true;
  console.error(`${r.request.method} ${r.url}: ${r.status} ${r.error} ${String(r.body).slice(0, 300)}`);
}

// nativeQuery asks one question. A wide one goes over a whole region's series, and has a
// floor of its own: what the others select is what a panel or an alert selects.
export function nativeQuery(body, wide) {
  const r = http.post(`${base}/api/v1/query`, JSON.stringify(body), {
    headers: headers('application/json'), tags: { name: wide ? 'native-query-wide' : 'native-query' },
  });
  note(check(r, { 'query answered': (x) => x.status === 200 && x.json('results') !== undefined }), r);
}

export function promQL(query, wide) {
  const r = http.get(`${base}/api/v1/query?query=${encodeURIComponent(query)}`, {
    headers: headers('application/x-www-form-urlencoded'), tags: { name: wide ? 'promql-wide' : 'promql' },
  });
  note(check(r, { 'PromQL answered': (x) => x.status === 200 && x.json('status') === 'success' }), r);
}

// seed writes what the queries read.
export function seed() {
  for (let i = 0; i < 10; i++) write(2000, i);
}

// queryFloors are the floors of the queries with a name, and of the wide ones beside them.
export function queryFloors(name) {
  return {
    request_errors: ['rate==0'],
    [`http_req_duration{name:${name}}`]: [`p(95)<${__ENV.FLOOR_QUERY_P95 || 100}`],
    [`http_req_duration{name:${name}-wide}`]: [`p(95)<${__ENV.FLOOR_WIDE_P95 || 100}`],
  };
}

// options returns k6 options: so many VUs for DURATION, and the floors.
export function options(vus, floors) {
  return {
    vus: Number(__ENV.VUS || vus), duration: __ENV.DURATION || '20s', thresholds: floors, discardResponseBodies: false,
    summaryTrendStats: ['min', 'med', 'avg', 'p(95)', 'p(99)', 'max'],
  };
}

// summary prints throughput, latencies, errors and PASS or FAIL of every floor.
export function summary(title, data) {
  const lines = [`\n== ${title} (${Math.round(data.state.testRunDurationMs / 1000)} s)`];
  const value = (metric, key) => (data.metrics[metric] ? data.metrics[metric].values[key] : undefined);
  const written = value('metrics_written', 'rate');
  if (written) lines.push(`metrics/s   ${written.toFixed(0)}`);
  lines.push(`requests/s  ${(value('http_reqs', 'rate') || 0).toFixed(0)}`);
  // Of each kind of request that has a floor; of all where none has.
  const kinds = Object.keys(data.metrics).filter((m) => m.startsWith('http_req_duration{name:'));
  for (const kind of kinds.length ? kinds : ['http_req_duration']) {
    const ms = (key) => `${(value(kind, key) || 0).toFixed(1)} ms`;
    lines.push(`latency     p50 ${ms('med')}  p95 ${ms('p(95)')}  p99 ${ms('p(99)')}  ${kind.replace(/.*name:|}/g, '')}`);
  }
  lines.push(`errors      ${(100 * (value('request_errors', 'rate') || 0)).toFixed(3)} %`);
  for (const [name, m] of Object.entries(data.metrics)) {
    for (const [floor, t] of Object.entries(m.thresholds || {})) lines.push(`${t.ok ? 'PASS' : 'FAIL'}        ${name} ${floor}`);
  }
  return { stdout: `${lines.join('\n')}\n` };
}
