package compare

// Step is one turn of an arm in a comparison.
type Step struct {
	Round  int // in which each arm's server is started once
	Repeat int // of the cells, on this start
	Arm    int // index
}

// Order interleaves the arms. When their servers run at the same time
// (together), they take turns within each round, and every other turn goes the
// other way round: ABBA. Otherwise an arm has all its repeats before its server
// gives the GPUs to the next one's, and every other round goes the other way
// round. Either way a drift that is linear in time falls on all arms alike, when
// the number of turns is even.
func Order(arms, rounds, repeats int, together bool) []Step {
	var out []Step
	turn := func(n int, each func(arm int)) {
		for i := range arms {
			if n%2 == 1 {
				i = arms - 1 - i
			}
			each(i)
		}
	}
	for r := range rounds {
		if together {
			for k := range repeats {
				turn(r*repeats+k, func(arm int) { out = append(out, Step{r, k, arm}) })
			}
			continue
		}
		turn(r, func(arm int) {
			for k := range repeats {
				out = append(out, Step{r, k, arm})
			}
		})
	}
	return out
}
