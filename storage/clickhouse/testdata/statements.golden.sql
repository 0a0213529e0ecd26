SELECT metric, loc, series_id, arrayStringConcat(kv) AS labels
FROM series
WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64}
LIMIT 1 BY metric, loc, series_id

SELECT metric, loc, series_id, arrayStringConcat(any(kv)) AS labels, max(day) AS last_day
FROM series
WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64}
GROUP BY metric, loc, series_id

SELECT substring(kv[indexOf(names, {p12:String})], {p13:Int64} + multiIf(length(kv[indexOf(names, {p12:String})]) <= {p13:Int64} + 128, 2, length(kv[indexOf(names, {p12:String})]) <= {p13:Int64} + 16385, 3, 4)) AS v
FROM series
WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64} AND v != ''
GROUP BY v
ORDER BY v
LIMIT {p14:Int64}

SELECT series_id, toUnixTimestamp64Milli(ts) AS t, image, st
FROM samples
WHERE tenant = {p15:String} AND metric IN {p16:Array(String)} AND loc IN {p17:Array(UInt32)} AND series_id IN {p18:Array(UInt64)} AND (metric, loc, series_id) IN (SELECT metric, loc, series_id FROM series WHERE tenant = {p19:String} AND metric = {p20:String} AND has(kv, {p21:String}) AND NOT has(kv, {p22:String}) AND match(substring(kv[indexOf(names, {p23:String})], {p24:Int64} + multiIf(length(kv[indexOf(names, {p23:String})]) <= {p24:Int64} + 128, 2, length(kv[indexOf(names, {p23:String})]) <= {p24:Int64} + 16385, 3, 4)), {p25:String}) AND NOT (match(substring(kv[indexOf(names, {p26:String})], {p27:Int64} + multiIf(length(kv[indexOf(names, {p26:String})]) <= {p27:Int64} + 128, 2, length(kv[indexOf(names, {p26:String})]) <= {p27:Int64} + 16385, 3, 4)), {p28:String})) AND day BETWEEN {p29:Int64} AND {p30:Int64}) AND ts >= fromUnixTimestamp64Milli({p31:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Milli({p32:Int64}, 'UTC')
ORDER BY tenant, metric, loc, series_id, ts

DELETE FROM series WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64}

SELECT series_id, toUInt32(i) AS step, toUInt64(0) AS image_result, sumKahan(value) AS number_result, countIf(image <= {p37:UInt64} OR image >= {p38:UInt64}) AS bad, count() AS n
FROM (
    SELECT series_id, ts, image, value, toInt64(if(toUnixTimestamp64Milli(ts) > {p33:Int64} + (if(toUnixTimestamp64Milli(ts) <= {p33:Int64}, 0, intDiv(toUnixTimestamp64Milli(ts) - {p33:Int64} + {p34:Int64} - 1, {p34:Int64}))) * {p34:Int64} - {p35:Int64}, if(toUnixTimestamp64Milli(ts) <= {p33:Int64}, 0, intDiv(toUnixTimestamp64Milli(ts) - {p33:Int64} + {p34:Int64} - 1, {p34:Int64})), -1)) AS i
    FROM samples FINAL
    WHERE tenant = {p0:String} AND metric = {p1:String} AND has(kv, {p2:String}) AND NOT has(kv, {p3:String}) AND match(substring(kv[indexOf(names, {p4:String})], {p5:Int64} + multiIf(length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 128, 2, length(kv[indexOf(names, {p4:String})]) <= {p5:Int64} + 16385, 3, 4)), {p6:String}) AND NOT (match(substring(kv[indexOf(names, {p7:String})], {p8:Int64} + multiIf(length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 128, 2, length(kv[indexOf(names, {p7:String})]) <= {p8:Int64} + 16385, 3, 4)), {p9:String})) AND day BETWEEN {p10:Int64} AND {p11:Int64} AND image != {p39:UInt64}
)
WHERE i >= 0 AND i < {p36:Int64}
GROUP BY series_id, i
