SELECT CAST(metric AS String) AS metric_name, loc, series_id, arrayStringConcat(kv) AS labels
FROM series
WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64}
LIMIT 1 BY metric, loc, series_id
LIMIT {p12:Int64}

SELECT CAST(metric AS String) AS metric_name, loc, series_id, arrayStringConcat(any(kv)) AS labels, max(day) AS last_day
FROM series
WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64}
GROUP BY metric, loc, series_id

SELECT substring(kv[indexOf(names, {p13:String})], {p14:Int64} + multiIf(length(kv[indexOf(names, {p13:String})]) <= {p14:Int64} + 128, 2, length(kv[indexOf(names, {p13:String})]) <= {p14:Int64} + 16385, 3, 4)) AS v
FROM series
WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64} AND v != ''
GROUP BY v
ORDER BY v
LIMIT {p15:Int64}

SELECT series_id, toUnixTimestamp64Milli(ts) AS t, image, st
FROM samples
WHERE tenant = {p16:String} AND metric IN {p17:Array(String)} AND loc IN {p18:Array(UInt32)} AND series_id IN {p19:Array(UInt64)} AND (metric, loc, series_id) IN (SELECT metric, loc, series_id FROM series WHERE tenant = {p20:String} AND metric = {p21:String} AND has(kv, {p22:String}) AND NOT has(kv, {p23:String}) AND match(substring(kv[indexOf(names, {p24:String})], {p25:Int64} + multiIf(length(kv[indexOf(names, {p24:String})]) <= {p25:Int64} + 128, 2, length(kv[indexOf(names, {p24:String})]) <= {p25:Int64} + 16385, 3, 4)), {p26:String}) AND NOT (match(substring(kv[indexOf(names, {p27:String})], {p28:Int64} + multiIf(length(kv[indexOf(names, {p27:String})]) <= {p28:Int64} + 128, 2, length(kv[indexOf(names, {p27:String})]) <= {p28:Int64} + 16385, 3, 4)), {p29:String})) AND day BETWEEN {p30:Int64} AND {p31:Int64}) AND ts >= fromUnixTimestamp64Milli({p32:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Milli({p33:Int64}, 'UTC')
ORDER BY metric, loc, series_id, ts

DELETE FROM series WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64}

SELECT CAST(metric AS String) AS metric_name, loc, series_id, kv[indexOf(names, {p0:String})] AS group_labels
FROM series
WHERE tenant = {p1:String} AND metric = {p2:String} AND has(kv, {p3:String}) AND NOT has(kv, {p4:String}) AND match(substring(kv[indexOf(names, {p5:String})], {p6:Int64} + multiIf(length(kv[indexOf(names, {p5:String})]) <= {p6:Int64} + 128, 2, length(kv[indexOf(names, {p5:String})]) <= {p6:Int64} + 16385, 3, 4)), {p7:String}) AND NOT (match(substring(kv[indexOf(names, {p8:String})], {p9:Int64} + multiIf(length(kv[indexOf(names, {p8:String})]) <= {p9:Int64} + 128, 2, length(kv[indexOf(names, {p8:String})]) <= {p9:Int64} + 16385, 3, 4)), {p10:String})) AND day BETWEEN {p11:Int64} AND {p12:Int64}
LIMIT {p13:Int64}

SELECT loc, series_id, kv[indexOf(names, {p14:String})] AS group_labels
FROM series
WHERE tenant = {p15:String} AND metric = {p16:String} AND has(kv, {p17:String}) AND NOT has(kv, {p18:String}) AND match(substring(kv[indexOf(names, {p19:String})], {p20:Int64} + multiIf(length(kv[indexOf(names, {p19:String})]) <= {p20:Int64} + 128, 2, length(kv[indexOf(names, {p19:String})]) <= {p20:Int64} + 16385, 3, 4)), {p21:String}) AND NOT (match(substring(kv[indexOf(names, {p22:String})], {p23:Int64} + multiIf(length(kv[indexOf(names, {p22:String})]) <= {p23:Int64} + 128, 2, length(kv[indexOf(names, {p22:String})]) <= {p23:Int64} + 16385, 3, 4)), {p24:String})) AND day BETWEEN {p25:Int64} AND {p26:Int64}

SELECT loc, series_id
FROM series
WHERE tenant = {p27:String} AND metric = {p28:String} AND day BETWEEN {p29:Int64} AND {p30:Int64}

SELECT series_id, t AS t, image
FROM samples
WHERE tenant = {p33:String} AND metric IN {p34:Array(String)} AND loc >= {p31:UInt32} AND loc <= {p32:UInt32} AND ts >= fromUnixTimestamp64Milli({p35:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Milli({p36:Int64}, 'UTC')

SELECT 1
FROM histograms
WHERE tenant = {p37:String} AND metric IN {p38:Array(String)} AND loc IN {p39:Array(UInt32)} AND series_id IN {p40:Array(UInt64)} AND ts >= fromUnixTimestamp64Milli({p41:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Milli({p42:Int64}, 'UTC')
LIMIT 1

SELECT CAST(metric AS String) AS metric_name, loc, series_id, arrayStringConcat(arrayFilter((pair, name) -> NOT has({p0:Array(String)}, name) AND name != {p1:String}, kv, names)) AS group_labels
FROM series
WHERE tenant = {p2:String} AND metric = {p3:String} AND has(kv, {p4:String}) AND NOT has(kv, {p5:String}) AND match(substring(kv[indexOf(names, {p6:String})], {p7:Int64} + multiIf(length(kv[indexOf(names, {p6:String})]) <= {p7:Int64} + 128, 2, length(kv[indexOf(names, {p6:String})]) <= {p7:Int64} + 16385, 3, 4)), {p8:String}) AND NOT (match(substring(kv[indexOf(names, {p9:String})], {p10:Int64} + multiIf(length(kv[indexOf(names, {p9:String})]) <= {p10:Int64} + 128, 2, length(kv[indexOf(names, {p9:String})]) <= {p10:Int64} + 16385, 3, 4)), {p11:String})) AND day BETWEEN {p12:Int64} AND {p13:Int64}
LIMIT {p14:Int64}

SELECT loc, series_id, arrayStringConcat(arrayFilter((pair, name) -> NOT has({p15:Array(String)}, name) AND name != {p16:String}, kv, names)) AS group_labels
FROM series
WHERE tenant = {p17:String} AND metric = {p18:String} AND has(kv, {p19:String}) AND NOT has(kv, {p20:String}) AND match(substring(kv[indexOf(names, {p21:String})], {p22:Int64} + multiIf(length(kv[indexOf(names, {p21:String})]) <= {p22:Int64} + 128, 2, length(kv[indexOf(names, {p21:String})]) <= {p22:Int64} + 16385, 3, 4)), {p23:String}) AND NOT (match(substring(kv[indexOf(names, {p24:String})], {p25:Int64} + multiIf(length(kv[indexOf(names, {p24:String})]) <= {p25:Int64} + 128, 2, length(kv[indexOf(names, {p24:String})]) <= {p25:Int64} + 16385, 3, 4)), {p26:String})) AND day BETWEEN {p27:Int64} AND {p28:Int64}

SELECT loc, series_id
FROM series
WHERE tenant = {p29:String} AND metric = {p30:String} AND day BETWEEN {p31:Int64} AND {p32:Int64}

SELECT series_id, t AS t, image
FROM samples
WHERE tenant = {p35:String} AND metric IN {p36:Array(String)} AND loc >= {p33:UInt32} AND loc <= {p34:UInt32} AND ts >= fromUnixTimestamp64Milli({p37:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Milli({p38:Int64}, 'UTC')

SELECT 1
FROM histograms
WHERE tenant = {p39:String} AND metric IN {p40:Array(String)} AND loc IN {p41:Array(UInt32)} AND series_id IN {p42:Array(UInt64)} AND ts >= fromUnixTimestamp64Milli({p43:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Milli({p44:Int64}, 'UTC')
LIMIT 1
