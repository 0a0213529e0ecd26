CREATE TABLE IF NOT EXISTS meta (
    key     String,
    value   String,
    version DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(version)
ORDER BY key;

CREATE TABLE IF NOT EXISTS samples (
    tenant         LowCardinality(String),
    metric         LowCardinality(String),
    loc            UInt32 CODEC(Delta, ZSTD(1)),
    series_id      UInt64 CODEC(Delta, ZSTD(1)),
    ts             DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    image          UInt64 CODEC(Delta, ZSTD(1)),
    st             Int64 CODEC(Delta, ZSTD(1)),
    retention_days UInt16 CODEC(ZSTD(1)),
    value          Float64 ALIAS reinterpretAsFloat64(if(bitTest(image + 0xFFF0000000000001, 63), bitXor(image + 0xFFF0000000000001, 0x8000000000000000), bitNot(image + 0xFFF0000000000001))),
    INDEX image_index image TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(image)
PARTITION BY (retention_days, toDate32(ts))
ORDER BY (tenant, metric, loc, series_id, ts)
TTL if(retention_days = 0, toDateTime('2106-01-01 00:00:00'), toDateTime(least(toUnixTimestamp64Milli(ts) DIV 1000 + retention_days * 86400, 4294967295)))
SETTINGS ttl_only_drop_parts = 1, merge_selector_base = 10, auto_statistics_types = '', non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS histograms (
    tenant         LowCardinality(String),
    metric         LowCardinality(String),
    loc            UInt32 CODEC(Delta, ZSTD(1)),
    series_id      UInt64 CODEC(Delta, ZSTD(1)),
    ts             DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    digest         UInt64,
    st             Int64 CODEC(Delta, ZSTD(1)),
    retention_days UInt16 CODEC(ZSTD(1)),
    data           String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree()
PARTITION BY (retention_days, toDate32(ts))
ORDER BY (tenant, metric, loc, series_id, ts, digest)
TTL if(retention_days = 0, toDateTime('2106-01-01 00:00:00'), toDateTime(least(toUnixTimestamp64Milli(ts) DIV 1000 + retention_days * 86400, 4294967295)))
SETTINGS ttl_only_drop_parts = 1, merge_selector_base = 10, auto_statistics_types = '', non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS exemplars (
    tenant         LowCardinality(String),
    metric         LowCardinality(String),
    loc            UInt32 CODEC(Delta, ZSTD(1)),
    series_id      UInt64 CODEC(Delta, ZSTD(1)),
    ts             DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    image          UInt64 CODEC(ZSTD(1)),
    labels         String CODEC(ZSTD(3)),
    position       UInt32,
    retention_days UInt16 CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree()
PARTITION BY (retention_days, toDate32(ts))
ORDER BY (tenant, metric, loc, series_id, ts, image, labels)
TTL if(retention_days = 0, toDateTime('2106-01-01 00:00:00'), toDateTime(least(toUnixTimestamp64Milli(ts) DIV 1000 + retention_days * 86400, 4294967295)))
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS series (
    tenant         LowCardinality(String),
    metric         LowCardinality(String),
    loc            UInt32 CODEC(Delta, ZSTD(1)),
    series_id      UInt64 CODEC(ZSTD(1)),
    day            Int32 CODEC(Delta, ZSTD(1)),
    names          Array(LowCardinality(String)) CODEC(ZSTD(1)),
    kv             Array(String) CODEC(ZSTD(3)),
    retention_days UInt16 CODEC(ZSTD(1)),
    written        DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    INDEX kv_index kv TYPE text(tokenizer = 'array')
) ENGINE = ReplacingMergeTree(written)
PARTITION BY (retention_days, intDiv(day, 7))
ORDER BY (tenant, metric, loc, series_id, day)
TTL if(retention_days = 0, toDateTime('2106-01-01 00:00:00'), toDateTime(least((toInt64(day) + 1 + retention_days) * 86400, 4294967295)))
SETTINGS ttl_only_drop_parts = 1, merge_selector_base = 10, auto_statistics_types = '', non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS metric_meta (
    tenant  LowCardinality(String),
    metric  String,
    type    LowCardinality(String),
    unit    String,
    help    String,
    version DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, metric);

CREATE TABLE IF NOT EXISTS retention (
    tenant  LowCardinality(String),
    metric  String,
    days    UInt32,
    removed UInt8,
    version DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, metric);

CREATE TABLE IF NOT EXISTS deletes (
    tenant   LowCardinality(String),
    id       String,
    kind     LowCardinality(String),
    selector String,
    mint     Int64,
    maxt     Int64,
    matched  UInt64,
    created  DateTime64(6, 'UTC'),
    erased   DateTime64(6, 'UTC'),
    version  DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(version)
ORDER BY (tenant, id);

CREATE TABLE IF NOT EXISTS notes (
    at      DateTime64(6, 'UTC') DEFAULT now64(6),
    process String,
    seq     UInt64,
    body    String CODEC(NONE)
) ENGINE = MergeTree()
PARTITION BY toStartOfHour(at)
ORDER BY (at, process)
TTL toDateTime(at) + INTERVAL 3 HOUR
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

ALTER TABLE samples ADD INDEX IF NOT EXISTS image_index image TYPE minmax GRANULARITY 1;

ALTER TABLE samples MODIFY SETTING merge_selector_base = 10, auto_statistics_types = '';

ALTER TABLE histograms MODIFY SETTING merge_selector_base = 10, auto_statistics_types = '';

ALTER TABLE series MODIFY SETTING merge_selector_base = 10, auto_statistics_types = '';

ALTER TABLE samples MODIFY COLUMN ts CODEC(Delta, ZSTD(1));

ALTER TABLE histograms MODIFY COLUMN ts CODEC(Delta, ZSTD(1));

ALTER TABLE exemplars MODIFY COLUMN ts CODEC(Delta, ZSTD(1));
