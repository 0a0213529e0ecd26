//go:build linux

package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// walker copies the Native bytes it reads from src to out, column by column.
type walker struct {
	src io.Reader
	out []byte
	one [1]byte
}

func (w *walker) take(n int) ([]byte, error) {
	l := len(w.out)
	if cap(w.out)-l < n {
		grown := make([]byte, l, 2*cap(w.out)+n+4096)
		copy(grown, w.out)
		w.out = grown
	}
	w.out = w.out[:l+n]
	_, err := io.ReadFull(w.src, w.out[l:])
	return w.out[l:], err
}

func (w *walker) ReadByte() (byte, error) { // without copying
	_, err := io.ReadFull(w.src, w.one[:])
	return w.one[0], err
}

func (w *walker) uvarint() (uint64, error) {
	v, err := binary.ReadUvarint(w)
	w.out = binary.AppendUvarint(w.out, v)
	return v, err
}

func (w *walker) str() (string, error) {
	n, err := w.uvarint()
	if err != nil {
		return "", err
	}
	if n > 1<<30 {
		return "", fmt.Errorf("string of %d bytes", n)
	}
	b, err := w.take(int(n))
	return string(b), err
}

func (w *walker) u64() (uint64, error) {
	b, err := w.take(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (w *walker) prefix(t ctype) error {
	switch t.name {
	case "LowCardinality", "JSONString":
		_, err := w.u64()
		return err
	case "Variant":
		if _, err := w.u64(); err != nil {
			return err
		}
	}
	for _, a := range t.args {
		if err := w.prefix(a); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) data(t ctype, rows int) error {
	if t.size > 0 {
		_, err := w.take(rows * t.size)
		return err
	}
	switch t.name {
	case "String", "JSONString":
		return w.strings(rows)
	case "Nullable":
		if _, err := w.take(rows); err != nil {
			return err
		}
		return w.data(t.args[0], rows)
	case "Array", "Map":
		return w.arrays(t, rows)
	case "Tuple":
		if len(t.args) == 0 {
			_, err := w.take(rows)
			return err
		}
		for _, a := range t.args {
			if err := w.data(a, rows); err != nil {
				return err
			}
		}
	case "LowCardinality":
		return w.lowCardinality(t, rows)
	case "Variant":
		return w.variants(t, rows)
	default:
		return fmt.Errorf("no walker for %s", t.name)
	}
	return nil
}

func (w *walker) strings(rows int) error {
	for i := 0; i < rows; i++ {
		n, err := w.uvarint()
		if err != nil {
			return err
		}
		if _, err = w.take(int(n)); err != nil {
			return err
		}
	}
	return nil
}

// arrays walks the offsets of all rows, then the elements.
func (w *walker) arrays(t ctype, rows int) error {
	off, err := w.take(rows * 8)
	if err != nil {
		return err
	}
	n := 0
	if rows > 0 {
		n = int(binary.LittleEndian.Uint64(off[len(off)-8:]))
	}
	for _, a := range t.args {
		if err := w.data(a, n); err != nil {
			return err
		}
	}
	return nil
}

// lowCardinality walks the flags, the dictionaries that they announce, and the keys.
func (w *walker) lowCardinality(t ctype, rows int) error {
	if rows == 0 {
		return nil
	}
	flags, err := w.u64()
	if err != nil {
		return err
	}
	inner := t.args[0]
	if inner.name == "Nullable" {
		inner = inner.args[0]
	}
	for _, bit := range []uint64{1 << 8, 1 << 9} { // global, then additional keys
		if flags&bit == 0 {
			continue
		}
		n, err := w.u64()
		if err != nil {
			return err
		}
		if err = w.data(inner, int(n)); err != nil {
			return err
		}
	}
	n, err := w.u64()
	if err != nil {
		return err
	}
	_, err = w.take(int(n) << (flags & 0xf))
	return err
}

// variants walks each row's discriminator, then each type's values.
func (w *walker) variants(t ctype, rows int) error {
	d, err := w.take(rows)
	if err != nil {
		return err
	}
	n := make([]int, 256)
	for _, x := range d {
		n[x]++
	}
	for i, a := range t.args {
		if err := w.data(a, n[i]); err != nil {
			return err
		}
	}
	return nil
}

// Column is a name and a type.
type Column struct{ Name, Type string }

const customSerialization = 54454

// block copies one block; rin and rout say at which revision the bytes are read and written
// (from 54454 on a flag byte follows each column's type; block info is the caller's).
func (w *walker) block(rin, rout int) (cols []Column, rows int, err error) {
	nc, err := w.uvarint()
	if err != nil {
		return nil, 0, err
	}
	nr, err := w.uvarint()
	if err != nil {
		return nil, 0, err
	}
	if nc > 1<<20 || nr > 1<<30 {
		return nil, 0, fmt.Errorf("block of %d columns, %d rows", nc, nr)
	}
	for i := uint64(0); i < nc; i++ {
		var c Column
		if c.Name, err = w.str(); err != nil {
			return nil, 0, err
		}
		if c.Type, err = w.str(); err != nil {
			return nil, 0, err
		}
		if rin >= customSerialization {
			f, err := w.ReadByte()
			if err != nil {
				return nil, 0, err
			}
			if f != 0 {
				return nil, 0, fmt.Errorf("column %s: custom serialization", c.Name)
			}
		}
		if rout >= customSerialization {
			w.out = append(w.out, 0)
		}
		cols = append(cols, c)
		if nr == 0 {
			continue
		}
		t, err := parseType(c.Type)
		if err == nil {
			if err = w.prefix(t); err == nil {
				err = w.data(t, int(nr))
			}
		}
		if err != nil {
			return nil, 0, fmt.Errorf("column %s %s: %w", c.Name, c.Type, err)
		}
	}
	return cols, int(nr), nil
}

// headerBlock encodes columns without rows.
func headerBlock(cols []Column, rev int) (b []byte) {
	b = binary.AppendUvarint(b, uint64(len(cols)))
	b = append(b, 0)
	for _, c := range cols {
		b = binary.AppendUvarint(b, uint64(len(c.Name)))
		b = append(b, c.Name...)
		b = binary.AppendUvarint(b, uint64(len(c.Type)))
		b = append(b, c.Type...)
		if rev >= customSerialization {
			b = append(b, 0)
		}
	}
	return b
}
