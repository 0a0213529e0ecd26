package badger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The first byte of every key; doc.go draws the keys.
const (
	keyFormat       = 0x00
	keyTenant       = 0x01
	keyMetadata     = 0x02
	keyPartition    = 0x03
	keyRetention    = 0x04
	keyReceipt      = 0x05
	keyTenantGone   = 0x06
	keyFirstDay     = 0x07
	keySequence     = 0x08
	keyPartitionRow = 0x10
)

// What follows part and tenant in the keys of a partition.
const (
	rowSeries    = 0x02
	rowIndex     = 0x03
	rowFloats    = 0x40
	rowHists     = 0x41
	rowFlushed   = 0x42
	rowExemplars = 0x50
	rowTombstone = 0x60
)

const dayMillis = 24 * 3600 * 1000

// dayOf returns the UTC day of t, days before 1970 are negative.
func dayOf(t int64) int32 {
	d := t / dayMillis
	if t%dayMillis < 0 {
		d--
	}
	return int32(d)
}

// dayStart returns the first millisecond of a day.
func dayStart(day int32) int64 { return int64(day) * dayMillis }

func partOf(day int32) uint32  { return uint32(day) ^ 1<<31 }
func dayOfPart(p uint32) int32 { return int32(p ^ 1<<31) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealValue appends the checksum of key and value.
func sealValue(key, value []byte) []byte {
	crc := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.LittleEndian.AppendUint32(value, crc)
}

// openValue checks and cuts off what sealValue appended.
func openValue(key, value []byte) ([]byte, error) {
	n := len(value) - 4
	if n < 0 {
		return nil, fmt.Errorf("value of key %x has %d bytes: %w", key, len(value), errDamaged)
	}
	crc := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[:n])
	if crc != binary.LittleEndian.Uint32(value[n:]) {
		return nil, fmt.Errorf("checksum of key %x does not match: %w", key, errDamaged)
	}
	return value[:n], nil
}

func tenantKey(name string) []byte { return append([]byte{keyTenant}, name...) }

// numberKey is kind | tenant4.
func numberKey(kind byte, tenant uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, tenant)
}

func metadataKey(tenant uint32, metric string) []byte {
	return append(numberKey(keyMetadata, tenant), metric...)
}

func receiptKey(tenant uint32, id string) []byte {
	return append(numberKey(keyReceipt, tenant), id...)
}

func partitionKey(day int32, tenant uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{keyPartition}, partOf(day)), tenant)
}

// parsePartitionKey is the inverse of partitionKey.
func parsePartitionKey(key []byte) (day int32, tenant uint32, ok bool) {
	if len(key) != 9 || key[0] != keyPartition {
		return 0, 0, false
	}
	return dayOfPart(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint32(key[5:]), true
}

// partitionPrefix is the beginning of all rows of a partition.
func partitionPrefix(day int32, tenant uint32) []byte {
	b := make([]byte, 0, 48)
	b = append(b, keyPartitionRow)
	b = binary.BigEndian.AppendUint32(b, partOf(day))
	return binary.BigEndian.AppendUint32(b, tenant)
}

// rowPrefix is the beginning of one kind of row of a partition.
func (p *partition) rowPrefix(row byte) []byte {
	return append(partitionPrefix(p.day, p.tenant.id), row)
}

func (p *partition) seriesKey(seq uint32) []byte {
	return binary.BigEndian.AppendUint32(p.rowPrefix(rowSeries), seq)
}

func (p *partition) flushedKey(group uint32) []byte {
	return binary.BigEndian.AppendUint32(p.rowPrefix(rowFlushed), group)
}

// groupKey is the beginning of the rows of one group, and the key of its exemplars.
func (p *partition) groupKey(row byte, group uint32) []byte {
	return binary.BigEndian.AppendUint32(p.rowPrefix(row), group)
}

func (p *partition) tombstoneKey(lsn uint64) []byte {
	return binary.BigEndian.AppendUint64(p.rowPrefix(rowTombstone), lsn)
}

const (
	groupKeyBytes = 1 + 4 + 4 + 1 + 4
	blockKeyBytes = groupKeyBytes + 4 + 4 + 8 + 2
)

// blockKey is a parsed key of a block: times are offsets into the day.
type blockKey struct {
	group  uint32
	t0, t1 uint32
	lsn    uint64
	gen    uint16 // counts rewrites
}

func (p *partition) blockKey(row byte, k blockKey) []byte {
	b := p.groupKey(row, k.group)
	b = binary.BigEndian.AppendUint32(b, k.t0)
	b = binary.BigEndian.AppendUint32(b, k.t1)
	b = binary.BigEndian.AppendUint64(b, k.lsn)
	return binary.BigEndian.AppendUint16(b, k.gen)
}

// parseBlockKey is the inverse of blockKey.
func parseBlockKey(key []byte) (blockKey, error) {
	if len(key) != blockKeyBytes {
		return blockKey{}, fmt.Errorf("block key %x has %d bytes: %w", key, len(key), errDamaged)
	}
	k := key[10:]
	return blockKey{
		group: binary.BigEndian.Uint32(k),
		t0:    binary.BigEndian.Uint32(k[4:]), t1: binary.BigEndian.Uint32(k[8:]),
		lsn: binary.BigEndian.Uint64(k[12:]), gen: binary.BigEndian.Uint16(k[20:]),
	}, nil
}
