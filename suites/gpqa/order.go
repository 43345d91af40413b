package gpqa

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// hashed is the order of a question's options in a repeat: by the SHA-256 of its
// id, the repeat and the option's place. It depends on nothing else.
func hashed(id string, repeat int) [4]int {
	var keys [4][32]byte
	for i := range keys {
		b := binary.BigEndian.AppendUint32([]byte("repromill options\x00"), uint32(repeat))
		b = append(binary.BigEndian.AppendUint32(b, uint32(i)), id...)
		keys[i] = sha256.Sum256(b)
	}
	order := [4]int{0, 1, 2, 3}
	slices.SortFunc(order[:], func(a, b int) int { return bytes.Compare(keys[a][:], keys[b][:]) })
	return order
}

// python is Python's random.Random: the generator MT19937, seeded by an integer.
// Two published protocols fix their orders by it.
//
// Source: Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998), with
// the initialisation of 2002; CPython's Lib/random.py says how numbers are drawn.
type python struct {
	state [624]uint32
	next  int
}

func newPython(seed uint32) *python {
	p := &python{next: 624}
	s := &p.state
	s[0] = 19650218
	for i := uint32(1); i < 624; i++ {
		s[i] = 1812433253*(s[i-1]^s[i-1]>>30) + i
	}
	i := 1
	for range 624 { // the key is one word, the seed
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1664525) + seed
		if i++; i == 624 {
			s[0], i = s[623], 1
		}
	}
	for range 623 {
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*1566083941) - uint32(i)
		if i++; i == 624 {
			s[0], i = s[623], 1
		}
	}
	s[0] = 1 << 31
	return p
}

func (p *python) uint32() uint32 {
	s := &p.state
	if p.next == 624 {
		for i := range s {
			y := s[i]&(1<<31) | s[(i+1)%624]&(1<<31-1)
			s[i] = s[(i+397)%624] ^ y>>1 ^ (y&1)*0x9908b0df
		}
		p.next = 0
	}
	y := s[p.next]
	p.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// below is _randbelow(n) for n up to 4.
func (p *python) below(n uint32) uint32 {
	bits := uint32(1)
	for n>>bits > 0 {
		bits++
	}
	for {
		if r := p.uint32() >> (32 - bits); r < n {
			return r
		}
	}
}

// sample is sample(range(4), 4).
func (p *python) sample() (out [4]int) {
	pool := [4]int{0, 1, 2, 3}
	for i := range uint32(4) {
		j := p.below(4 - i)
		out[i], pool[j] = pool[j], pool[3-i]
	}
	return out
}

// shuffle is shuffle of a list of four.
func (p *python) shuffle(list *[4]int) {
	for i := uint32(3); i > 0; i-- {
		j := p.below(i + 1)
		list[i], list[j] = list[j], list[i]
	}
}
