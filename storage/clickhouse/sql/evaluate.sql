-- name: groups
SELECT loc, series_id, metric, arrayStringConcat(arrayFilter((pair, name) -> {{.Keep}}, kv, names)) AS group_labels
FROM series
WHERE {{.Where}}
LIMIT 1 BY metric, loc, series_id

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

-- name: grid
SELECT series_id, arrayMap(x -> if(isNull(x), {{.Absent}}, reinterpretAsUInt64(assumeNotNull(x))), {{.Function}}({{.Start}}, {{.End}}, {{.Step}}, {{.Window}})(fromUnixTimestamp64Milli(toUnixTimestamp64Milli(ts) - {{.Base}}, 'UTC'), value)) AS bits, countIf({{.NotFinite}}) AS bad, {{.Fragile}} AS fragile, count() AS n
FROM samples FINAL
WHERE {{.Where}} AND image != {{.Stale}}
GROUP BY series_id

-- name: windows
SELECT series_id, toUInt32(i) AS step, {{.Image}} AS image_result, {{.Number}} AS number_result, countIf({{.NotFinite}}) AS bad, count() AS n
FROM (
    SELECT series_id, ts, image, value, {{.Index}} AS i
    FROM samples FINAL
    WHERE {{.Where}}{{.Live}}
)
WHERE {{.Inside}}
GROUP BY series_id, i

-- name: samples_of_windows
SELECT series_id, toUInt32(i) AS step, sumKahan(value) AS total, countIf({{.NotFinite}}) AS bad, count() AS n,
    {{.Least}} AS least, max(image) AS greatest,
    argMin(image, ts) AS first_image, toUnixTimestamp64Milli(min(ts)) AS first_ts,
    argMax(image, ts) AS last_image, toUnixTimestamp64Milli(max(ts)) AS last_ts
FROM (
    SELECT series_id, ts, image, value, {{.Index}} AS i
    FROM samples FINAL
    WHERE {{.Where}}{{.Live}}
)
WHERE {{.Inside}}
GROUP BY series_id, i

-- name: neighbours
SELECT series_id, toUInt32(i) AS step, toUInt64(countIf(paired)) AS pairs, sumKahanIf({{.Term}}, paired) AS total, sum(not_finite) AS bad, count() AS n
FROM (
    SELECT series_id, i, v, not_finite, t,
        lagInFrame(t, 1, -9223372036854775808) OVER w AS before_t,
        lagInFrame(v) OVER w AS before_v,
        lagInFrame(i, 1, -2) OVER w AS before_i,
        {{.Paired}} AS paired
    FROM (
        SELECT loc, series_id, toUnixTimestamp64Milli(ts) AS t, value AS v, {{.NotFinite}} AS not_finite, toInt64({{.Index}}) AS i
        FROM samples FINAL
        WHERE {{.Where}}{{.Live}}
    )
    WINDOW w AS (PARTITION BY series_id ORDER BY t ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
)
WHERE {{.Inside}}
GROUP BY series_id, i

-- name: many
SELECT count()
FROM (SELECT 1 FROM series WHERE {{.Where}} LIMIT {{.Limit}})

-- name: pushed
SELECT group_labels, countIf(NOT bad) AS series, sum(n) AS samples, groupArrayIf({{.Recall}})(series_id, bad) AS recall,
    sumKahanIf(v, NOT bad) AS total, minIf(v, NOT bad) AS least, maxIf(v, NOT bad) AS greatest
FROM (
    SELECT series_id, assumeNotNull(x) AS v, {{.Bad}} AS bad, n
    FROM (
        SELECT series_id, {{.Number}} AS x, {{.Fragile}} AS large, countIf({{.NotFinite}}) AS odd, argMax(image, ts) AS last_image, count() AS n
        FROM samples FINAL
        WHERE {{.Where}}{{.Live}}
        GROUP BY series_id
    )
    WHERE isNotNull(x) AND last_image != {{.Stale}}
) AS r
ANY LEFT JOIN (
    SELECT series_id, arrayStringConcat(arrayFilter((pair, name) -> {{.Keep}}, kv, names)) AS group_labels, 1 AS found
    FROM series
    WHERE {{.Series}}
    LIMIT 1 BY series_id
) AS s USING (series_id)
WHERE found = 1
GROUP BY group_labels
