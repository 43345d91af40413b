package harness_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/harness"
)

// TestArmsApart: blocks that are asked of one arm after another come to what blocks
// of all arms do, and a block counts once all arms have it.
func TestArmsApart(t *testing.T) {
	a := server(t, endpointtest.Config{Answer: answers("a", 0.9)})
	b := server(t, endpointtest.Config{Answer: answers("b", 0.6)})
	const n, of = 240, 4
	terms := harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.05, Alpha: 0.05, Look: 16}}
	c := config(t, n, a, b)
	c.Terms, c.Repeats = terms, 2
	want := run(t, c)
	if !want.Decided() || want.Used >= n {
		t.Fatalf("not decided early: %+v", want)
	}
	var dirs []string
	half := func(block int, only string) {
		one := c
		one.Dir, one.Only, one.Shard, one.Arms = t.TempDir(), only, harness.Shard{Index: block, Of: of}, nil
		for _, x := range c.Arms {
			if x.Name != only {
				x.Server = nil // nobody else's is up
			}
			one.Arms = append(one.Arms, x)
		}
		res := run(t, one)
		if again := run(t, one); again.Paid.Requests != res.Paid.Requests || again.Paid.Requests != 2*n/of {
			t.Errorf("%s of block %d was asked %d times, and %d when taken up", only, block, res.Paid.Requests, again.Paid.Requests)
		}
		if len(res.Arms) != 1 || res.Arms[0].Arm != only || res.Arms[0].Answers != 2*n/of || len(res.Comparisons) != 0 || res.Units != 2*n/of || res.Paid.Overrun != 0 {
			t.Errorf("%s of block %d comes to %+v", only, block, res)
		}
		dirs = append(dirs, one.Dir)
	}
	merged := func() harness.Result {
		res, err := harness.Merge(t.Context(), c, dirs...)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	for block := range of {
		first, second := "fp8", "nvfp4"
		if block%2 == 1 {
			first, second = second, first
		}
		before := 0
		if block > 0 {
			before = merged().Used
		}
		half(block, first)
		if got := merged(); got.Used != before {
			t.Errorf("half of block %d counts: %d questions, and %d before", block, got.Used, before)
		}
		half(block, second)
		got := merged()
		if got.Decided() != ((block+1)*n/of >= want.Used) {
			t.Errorf("after block %d it is decided: %v; one run took %d questions", block, got.Decided(), want.Used)
		}
	}
	got := merged()
	if got.Used != want.Used || !reflect.DeepEqual(got.Arms, want.Arms) || !reflect.DeepEqual(got.Comparisons, want.Comparisons) {
		t.Errorf("merged %+v %+v over %d, want %+v %+v over %d", got.Arms, got.Comparisons, got.Used, want.Arms, want.Comparisons, want.Used)
	}
	if got.Paid.Requests != 2*2*n || got.Paid.Repeated != 0 {
		t.Errorf("paid %+v", got.Paid)
	}
	c.Only = "int4"
	if _, err := harness.Run(t.Context(), c); err == nil {
		t.Error("an arm that there is not is asked")
	}
}

// TestOneArmWhole: one arm of a whole suite decides nothing, and is taken up where it
// was interrupted.
func TestOneArmWhole(t *testing.T) {
	stop := make(chan struct{}, 1)
	seen := 0
	a := server(t, endpointtest.Config{Answer: answers("a", 0.9)})
	b := server(t, endpointtest.Config{Answer: func(x endpointtest.Asked) endpointtest.Reply {
		if seen++; seen == 40 {
			stop <- struct{}{}
		}
		r := answers("b", 0.2)(x)
		r.Delay = time.Millisecond
		return r
	}, Slots: 1})
	c := config(t, 120, a, b)
	c.Only, c.Terms = "nvfp4", harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.05, Alpha: 0.05, Look: 16}}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() { <-stop; interrupt() }()
	if _, err := harness.Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	res := run(t, c)
	if !res.Complete() || res.Stopped != "" || res.Paid.Requests < 120 || res.Paid.Requests-res.Paid.Repeated != 120 || a.Requests() != 0 {
		t.Errorf("%+v; the other arm was asked %d times", res, a.Requests())
	}
}
