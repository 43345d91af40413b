package suites

import "fmt"

// Mean returns avg@k: the mean over items of the mean score of the item's
// repeats. Items without repeats do not count. It is the number to compare; the
// others below hide variance.
func Mean(scores [][]float64) float64 {
	var sum float64
	n := 0
	for _, item := range scores {
		if len(item) == 0 {
			continue
		}
		var s float64
		for _, v := range item {
			s += v
		}
		sum += s / float64(len(item))
		n++
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// PassAt returns the unbiased estimate of pass@k, the chance that at least one
// of k answers is right, from c right ones among n:
//
//	1 - C(n-c, k) / C(n, k)
//
// Source: Chen et al., "Evaluating Large Language Models Trained on Code",
// arXiv 2107.03374, equation 1, in the product form that does not overflow.
func PassAt(n, c, k int) (float64, error) {
	if err := checkAt(n, c, k); err != nil {
		return 0, err
	}
	if n-c < k {
		return 1, nil
	}
	miss := 1.0
	for i := n - c + 1; i <= n; i++ {
		miss *= 1 - float64(k)/float64(i)
	}
	return 1 - miss, nil
}

// AllAt returns the unbiased estimate of pass^k, the chance that all of k
// answers are right: C(c, k) / C(n, k).
//
// Source: Yao et al., τ-bench, arXiv 2406.12045, section 3.
func AllAt(n, c, k int) (float64, error) {
	if err := checkAt(n, c, k); err != nil {
		return 0, err
	}
	all := 1.0
	for i := range k {
		all *= float64(max(c-i, 0)) / float64(n-i)
	}
	return all, nil
}

func checkAt(n, c, k int) error {
	if c < 0 || c > n || k < 1 || k > n {
		return fmt.Errorf("estimate over %d of %d answers with %d right: want 0 ≤ right ≤ answers and 1 ≤ k ≤ answers", k, n, c)
	}
	return nil
}

// Majority returns the answer that maj@k votes for: the most frequent of the
// answers given, of equally frequent ones that which came first. Answers that
// are "" do not vote; without a vote the result is "".
func Majority(answers []string) string {
	votes := map[string]int{}
	for _, a := range answers {
		votes[a]++
	}
	best := ""
	for _, a := range answers {
		if a != "" && (best == "" || votes[a] > votes[best]) {
			best = a
		}
	}
	return best
}
