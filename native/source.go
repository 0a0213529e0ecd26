package native

import (
	"net/http"
	"strings"

	"github.com/luminate/luminate/storage"
	"github.com/zeebo/xxh3"
)

func (d *decoder) decodeSource() error {
	s, wide, err := d.str()
	if err != nil {
		return err
	}
	return d.setSource(strings.Clone(s), wide)
}

func (d *decoder) setSource(s string, wide bool) error {
	if why := badDimensionValue(s, wide, d.lim.MaxValueBytes); why != "" {
		return errorf(http.StatusBadRequest, CodeInvalidDimension, "source %s", why)
	}
	d.source = s
	return nil
}

// InstanceDimension is the dimension that `source` fills.
const InstanceDimension = "instance"

// applySource adds the source to the metrics that name no instance. It runs after
// the whole body is read: `source` may stand behind the metrics.
func (d *decoder) applySource() {
	if d.source == "" {
		return
	}
	old := d.labels
	out := make([]byte, 0, len(old)+len(d.records)*(len(InstanceDimension)+len(d.source)+4))
	for i := range d.records {
		r := &d.records[i]
		ls := storage.Labels(old[r.from:r.to])
		from := len(out)
		if r.instance {
			out = append(out, ls...)
		} else {
			added := false
			for n, v := range ls.All() {
				if !added && n > InstanceDimension {
					out, added = storage.AppendLabel(out, InstanceDimension, d.source), true
				}
				out = storage.AppendLabel(out, n, v)
			}
			if !added {
				out = storage.AppendLabel(out, InstanceDimension, d.source)
			}
		}
		r.from, r.to = uint32(from), uint32(len(out))
		r.hash = xxh3.Hash(out[from:])
	}
	d.labels = out
}
