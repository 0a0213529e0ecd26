-- name: samples
SELECT series_id, {{.Time}} AS t, image
FROM samples
WHERE {{.Where}}

-- name: present
SELECT series_id
FROM samples
WHERE {{.Where}}

-- name: roster
SELECT loc, series_id
FROM series
WHERE {{.Where}}

-- name: groups
SELECT loc, series_id, {{.Group}} AS group_labels
FROM series
WHERE {{.Where}}

-- name: few
SELECT CAST(metric AS String) AS metric_name, loc, series_id, {{.Group}} AS group_labels
FROM series
WHERE {{.Where}}
LIMIT {{.Limit}}

-- name: labels
SELECT loc, series_id, arrayStringConcat(kv) AS labels
FROM series
WHERE {{.Where}}
LIMIT 1 BY loc, series_id

-- name: has_histograms
SELECT 1
FROM histograms
WHERE {{.Where}}
LIMIT 1

-- name: has_start_timestamps
SELECT 1
FROM samples
WHERE {{.Where}} AND st != 0
LIMIT 1

-- name: has_markers
SELECT 1
FROM samples
WHERE {{.Where}} AND image = {{.Marker}}
LIMIT 1
