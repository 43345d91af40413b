package harness

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
)

// layout is the order in which everything is asked, fixed before the first
// request.
type layout struct {
	items   []suites.Item // of this shard, in order
	first   int           // place of items[0] in the order of all questions
	total   int           // questions of the suite
	repeats int
	sha     string // of all items in order
	// wide asks every question once before any is asked again, so that a run which
	// ends early has all questions; otherwise all repeats of a question come
	// together, so that a sequential method can look at whole questions.
	wide  bool
	watch compare.Sequential // nil: nothing to look at before the end
	at    map[string]int     // place in items by id
}

// Order puts items into the order that a seed declares: by the SHA-256 of the
// seed and their ids, questions that share a passage together. It depends on
// nothing else, so that anyone can check it.
func Order(items []suites.Item, seed uint64) []suites.Item {
	key := func(s string) [32]byte {
		b := binary.BigEndian.AppendUint64([]byte("repromill order\x00"), seed)
		return sha256.Sum256(append(b, s...))
	}
	type placed struct {
		group, own [32]byte
		item       suites.Item
	}
	all := make([]placed, len(items))
	for i, it := range items {
		own := key("item\x00" + it.ID)
		all[i] = placed{own, own, it}
		if it.Cluster != "" {
			all[i].group = key("cluster\x00" + it.Cluster)
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(bytes.Compare(a.group[:], b.group[:]), bytes.Compare(a.own[:], b.own[:]))
	})
	out := make([]suites.Item, len(all))
	for i := range all {
		out[i] = all[i].item
	}
	return out
}

// arrange makes the layout.
func arrange(ctx context.Context, c *Config) (*layout, error) {
	items, err := c.Suite.Items(ctx)
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, it := range items {
		if ids[it.ID] {
			return nil, fmt.Errorf("suite %s: there are two questions %q", c.Name, it.ID)
		}
		ids[it.ID] = true
	}
	items = Order(items, c.Seed)
	if c.Limit > 0 && c.Limit < len(items) {
		items = items[:c.Limit]
	}
	if len(items) == 0 {
		return nil, &UserError{fmt.Sprintf("suite %s has no questions", c.Name), "check its data set"}
	}
	sum := sha256.New()
	for _, it := range items {
		fmt.Fprintln(sum, it.SHA())
	}
	l := &layout{total: len(items), repeats: c.Repeats, sha: hex.EncodeToString(sum.Sum(nil)), at: map[string]int{}}
	from, to, err := c.Shard.block(len(items))
	if err != nil {
		return nil, err
	}
	l.items, l.first = items[from:to], from
	for i, it := range l.items {
		l.at[it.ID] = i
	}
	l.wide = true
	if len(c.Arms) > 1 && c.Terms.Margin > 0 {
		m, err := compare.Find(c.Terms.Method)
		if err != nil {
			return nil, err
		}
		c.Terms.Total = len(items)
		// The decision about a sharded run is taken between its shards, over all.
		if s, ok := m.(compare.Sequential); ok {
			l.wide = false
			if c.Shard.Of <= 1 && c.Only == "" {
				l.watch = s
			}
		}
	}
	return l, nil
}

// units is how often all questions and repeats are asked of each arm.
func (l *layout) units() int { return len(l.items) * l.repeats }

// unit returns the question's place within the shard, and the repeat.
func (l *layout) unit(u int) (pos, repeat int) {
	if l.wide {
		return u % len(l.items), u / len(l.items)
	}
	return u / l.repeats, u % l.repeats
}

// index is the reverse of unit.
func (l *layout) index(pos, repeat int) int {
	if l.wide {
		return repeat*len(l.items) + pos
	}
	return pos*l.repeats + repeat
}

// questions returns how many questions are complete with the first units.
func (l *layout) questions(units int) int {
	if l.wide {
		return min(units, len(l.items))
	}
	return units / l.repeats
}

// whole takes off the beginning of a question whose repeats come together.
func (l *layout) whole(units int) int {
	if l.wide {
		return units
	}
	return units / l.repeats * l.repeats
}

// Seed is the sampling seed of an answer: the same for all arms.
func Seed(seed uint64, item string, repeat int) int64 {
	b := binary.BigEndian.AppendUint64([]byte("repromill seed\x00"), seed)
	b = binary.BigEndian.AppendUint64(b, uint64(repeat))
	sum := sha256.Sum256(append(b, item...))
	return int64(binary.BigEndian.Uint64(sum[:8]) >> 33) // 31 bits: some servers take no more
}
