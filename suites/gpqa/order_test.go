package gpqa

import "testing"

// TestPython holds the generator to what CPython 3 prints for
//
//	r = random.Random(0); [r.sample(range(4), 4) for _ in range(5006)]
//	random.seed(42); for 700 lists [1, 2, 3, 0]: random.shuffle(l)
//
// which goes through the generator's state several times.
func TestPython(t *testing.T) {
	p := newPython(0)
	var got [5006][4]int
	for i := range got {
		got[i] = p.sample()
	}
	for i, want := range map[int][4]int{0: {3, 1, 0, 2}, 1: {3, 1, 2, 0}, 2: {2, 3, 0, 1}, 3: {2, 0, 3, 1}, 4: {1, 3, 0, 2}, 5: {2, 1, 0, 3}, 5005: {3, 0, 1, 2}} {
		if got[i] != want {
			t.Errorf("sample %d is %v, want %v", i, got[i], want)
		}
	}
	p = newPython(42)
	var lists [700][4]int
	for i := range lists {
		lists[i] = [4]int{1, 2, 3, 0}
		p.shuffle(&lists[i])
	}
	for i, want := range map[int][4]int{0: {3, 2, 0, 1}, 1: {0, 3, 1, 2}, 2: {2, 0, 3, 1}, 3: {2, 3, 1, 0}, 699: {3, 0, 1, 2}} {
		if lists[i] != want {
			t.Errorf("shuffle %d is %v, want %v", i, lists[i], want)
		}
	}
}

// TestHashed checks that every order comes about equally often: a candidate that
// prefers a letter must gain nothing by it.
func TestHashed(t *testing.T) {
	const n = 24_000
	count := map[[4]int]int{}
	for i := range n {
		count[hashed(string(rune('a'+i%26))+string(rune('A'+i/26%26)), i/676)]++
	}
	for order, c := range count {
		if c < 800 || c > 1200 { // 1,000 each; six standard deviations are 186
			t.Errorf("order %v came %d times of %d", order, c, n)
		}
	}
	if len(count) != 24 {
		t.Errorf("%d orders", len(count))
	}
}
