// Package promql serves the Prometheus query API over a storage.Store: PromQL by
// Prometheus's own engine, and the endpoints around it, field by field as
// Prometheus 3.16 answers them.
//
// The way of a query:
//
//	request ── parameters ── gate ── planner ── engine ── Queryable ── storage.Store
//	                                    │                                   │
//	                                    └──────── Grid: Evaluate ───────────┘
//
// Queryable shows a Store to the engine: samples are handed on as the store gave
// them, without a copy. The tenant comes from the request's context, and the
// context itself goes down to the store, where federation and narrowing happen.
//
// # What differs from Prometheus on purpose
//
//   - An error of the storage has the status that says what to do next: 503 for
//     an unavailable storage and 429 for a used-up quota, where Prometheus answers
//     422; a passed deadline is 503 "timeout" on every endpoint.
//   - query_exemplars takes times beyond the year 5138 as milliseconds: that is
//     what Grafana's probe sends.
//   - "NaN" and "Inf" are refused as times; Prometheus takes them for some time
//     in the far past or future.
//   - Lists are in ascending order where Prometheus leaves the order open (series
//     of one selector, warnings and infos).
//   - series, labels and label values narrow start and end to the days that hold
//     them: that is what the storage's index knows.
//   - metadata comes from what senders wrote, not from scrape targets.
//   - status/tsdb counts the series of the last three hours unless start, end and
//     match[] say otherwise; chunkCount is 0, a chunk is nothing that all backends
//     have.
//   - admin/tsdb/delete_series answers 202 with receipts instead of 204, and 403
//     where the admin API is off.
//   - rules, alerts, targets, scrape_pools, alertmanagers and notifications answer
//     the empty form: there is no ruler and no scraping here.
//   - Not there, as in a Prometheus without their feature flags: query_cost,
//     query_range_cost and the parameters max_series, max_samples_read,
//     max_query_duration and cost (limits are the tenant's), and search/* (404,
//     where Prometheus answers 500 "search API disabled").
//   - Not there at all (404), for want of what they tell about: status/tsdb/blocks,
//     status/self_metrics, scrape_pools/config, targets/relabel_steps,
//     notifications/live, admin/tsdb/clean_tombstones and admin/tsdb/snapshot
//     (deletes are erased by themselves; backups are `luminate backup`).
//   - query and query_range take explain=1, which adds the plan to the answer: what
//     was pushed into the storage, why the rest was not, and what each part cost.
//     The request header "X-Luminate-Planner: off" runs a query without the planner.
//
// Remote write, remote read and OTLP are not this package's: the prefix /prometheus
// serves the query API and /federate only.
package promql
