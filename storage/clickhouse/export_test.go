package clickhouse

// UseRosters makes evaluations read metrics as a whole from so many series on.
func (s *Store) UseRosters(from int) { s.fewSeries = from - 1 }

// CutRanges makes one statement of an evaluation bring so many samples only.
func (s *Store) CutRanges(samples int) { s.rangeSamples = samples }
