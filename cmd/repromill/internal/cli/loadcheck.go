package cli

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/suites/load/bench"
)

// proven is what `load self-check --json` prints.
type proven struct {
	Processors int           `json:"processors"` // that the load generator may use
	Streams    int           `json:"streams"`
	Points     []provenPoint `json:"points"`
}

type provenPoint struct {
	Asked float64      `json:"events_per_s_asked"`
	Check *bench.Check `json:"check"`
	OK    bool         `json:"ok"` // p99 lag within 5 % of the streams' ITL
}

func (a *app) loadSelfCheckCmd() *cobra.Command {
	var streams int
	var rates []float64
	var each time.Duration
	var seed uint64
	cmd := &cobra.Command{
		Use:   "self-check",
		Short: "Show how many events per second this machine can time, and how late it reads them",
		Long: `Read streams of a built-in server without a model at rising rates, and say how
much later than it was written each event was read. Where the lag exceeds 5 % of
the streams' inter-token latency, this machine cannot measure such a server.`,
		Example: `  repromill load self-check
  taskset -c 0 repromill load self-check --streams 512 --events 10000,20000,30000`,
		Args: exactArgs(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.loadSelfCheck(cmd.Context(), streams, rates, each, seed)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&streams, "streams", 512, "concurrent streams")
	fl.Float64SliceVar(&rates, "events", []float64{2000, 5000, 10000, 20000, 30000, 40000}, "events per second, a list")
	fl.DurationVar(&each, "each", 4*time.Second, "how long each rate is held")
	fl.Uint64Var(&seed, "seed", 1, "seed of prompts")
	return cmd
}

func (a *app) loadSelfCheck(ctx context.Context, streams int, rates []float64, each time.Duration, seed uint64) error {
	for _, r := range rates {
		if r < 1 || r > 1e7 || streams < 1 || each <= 0 {
			return usererrf("give rates from 1 to 10000000, streams from 1 and a time", "--events %g with %d streams is out of range", r, streams)
		}
	}
	null, stop, err := nullServer(ctx, 10*time.Millisecond)
	if err != nil {
		return err
	}
	defer stop()
	out := proven{Processors: runtime.GOMAXPROCS(0), Streams: streams}
	u := a.ui()
	defer u.abandon()
	if !a.jsonOut {
		fmt.Fprintf(a.stdout, "%d streams, %d processors\n%10s %12s %10s %10s %10s %8s %8s\n", streams, out.Processors, "ASKED/S", "EVENTS/S", "LAG p50", "LAG p99", "ITL", "CPU", "MEMORY")
	}
	for i, r := range rates {
		u.start(fmt.Sprintf("reading %.0f events/s", r))
		c, err := bench.Prove(ctx, null, streams, r, seed+uint64(i), each)
		u.abandon()
		if err != nil {
			return err
		}
		itl := float64(streams) / r
		p := provenPoint{Asked: r, Check: c, OK: c.LagP99 <= 0.05*itl}
		out.Points = append(out.Points, p)
		if !a.jsonOut {
			verdict := ""
			if !p.OK {
				verdict = "  too late"
			}
			fmt.Fprintf(a.stdout, "%10.0f %12.0f %10s %10s %10s %7.0f%% %5.0f MB%s\n", r, c.EventsPerS, fine(c.LagP50), fine(c.LagP99), millis(itl), 100*c.ClientCPU, float64(c.ClientRSS)/1e6, verdict)
		}
	}
	if a.jsonOut {
		return a.printJSON(out)
	}
	return nil
}

func fine(s float64) string { return fmt.Sprintf("%.2f ms", 1e3*s) }
