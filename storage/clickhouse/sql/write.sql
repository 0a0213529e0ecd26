-- name: insert_samples
INSERT INTO samples (tenant, metric, loc, series_id, ts, image, st, retention_days)

-- name: insert_histograms
INSERT INTO histograms (tenant, metric, loc, series_id, ts, digest, st, retention_days, data)

-- name: insert_exemplars
INSERT INTO exemplars (tenant, metric, loc, series_id, ts, image, labels, position, retention_days)

-- name: insert_series
INSERT INTO series (tenant, metric, loc, series_id, day, names, kv, retention_days)

-- name: insert_metadata
INSERT INTO metric_meta (tenant, metric, type, unit, help)

-- name: insert_retention
INSERT INTO retention (tenant, metric, days, removed)

-- name: insert_deletes
INSERT INTO deletes (tenant, id, kind, selector, mint, maxt, matched, created, erased)

-- name: insert_notes
INSERT INTO notes (process, seq, body)

-- name: insert_meta
INSERT INTO meta (key, value)

-- name: delete_rows
DELETE FROM {{.Table}}{{.OnCluster}} WHERE {{.Where}}

-- name: erase
ALTER TABLE {{.Table}}{{.OnCluster}} APPLY DELETED MASK
