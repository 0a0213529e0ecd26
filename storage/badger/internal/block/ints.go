package block

// A sequence of integers (a timestamp column, a series of scaled values) is stored as up to two first values and the rest
// after as many rounds of differences, either bit-packed or as varints that go through zstd. The kind byte tells the
// form; its high four bits belong to the caller (a decimal exponent).
const (
	kindPacked  = 0  // 0..2: bit-packed above a minimum, that many rounds of differences
	kindShifted = 3  // 3..5: the same, with common trailing zero bits cut off
	kindZigzag  = 6  // 6..8: zigzag varints
	kindOffset  = 9  // 9..11: varints above a minimum
	kindConst   = 12 // floats only: one raw value
	kindXOR     = 13 // floats only: byte planes of XOR with the previous value
	kindExcept  = 14 // floats only: a list of exceptions, then the kind byte proper
	kindMask    = 15
)
