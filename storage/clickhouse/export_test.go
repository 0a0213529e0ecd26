package clickhouse

// PushAlways makes the server aggregate groups however few series match.
func (s *Store) PushAlways() { s.pushFrom = 1 }
