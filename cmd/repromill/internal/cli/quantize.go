package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/runner/engine/ptq"
)

func (a *app) quantizeCmd() *cobra.Command {
	var format, out, calibration string
	var samples, threads int
	cmd := &cobra.Command{
		Use:   "quantize DIR",
		Short: "Quantise a small checkpoint to NVFP4 or FP8, as vLLM loads it",
		Long: `Round the linear weights of a Llama- or Qwen-like checkpoint to the nearest values
of a number format and write them in the layout of NVIDIA's Model Optimizer, which
vLLM loads. The head, embeddings and norms are left as they are.

  nvfp4        4-bit weights, 16-bit inputs (W4A16)
  nvfp4-w4a4   4-bit weights and inputs
  fp8          8-bit weights and inputs, one scale each
  bf16         of a quantised checkpoint: its values as they are, for programs
               that do not read its format; inputs are not rounded then

Where inputs are rounded, their scales are the largest magnitudes that come up
when the model is run over a text on this machine. Weights that an engine fuses
(q, k and v; gate and up) share their scales.

An interrupted run goes on where it was; the folder appears when it is whole.
Compare the result with what it was made of: repromill inspect OUT --against DIR.`,
		Example: `  repromill quantize ./tiny --format nvfp4
  repromill quantize ./tiny --format nvfp4-w4a4 -o ./tiny-w4a4 --calibration questions.txt
  repromill quantize ./tiny-nvfp4 --format bf16 -o ./tiny-nvfp4-values
  repromill quantize ./tiny --format fp8 && repromill inspect ./tiny-fp8 --against ./tiny`,
		Args: exactArgs(1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := filepath.Clean(a.expand(args[0]))
			cfg := ptq.Config{Dir: dir, Out: a.expand(out), Format: ptq.Format(format), MaxSamples: samples, Threads: threads, Version: buildVersion().Version}
			if out == "" {
				cfg.Out = dir + "-" + format
			}
			if calibration != "" {
				var err error
				if cfg.Text, err = a.calibrationText(calibration); err != nil {
					return err
				}
			}
			return a.quantize(cmd.Context(), cfg)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&format, "format", "", "`FORMAT`: nvfp4, nvfp4-w4a4, fp8 or bf16")
	fl.StringVarP(&out, "out", "o", "", "write to the folder `OUT` (default: DIR-FORMAT)")
	fl.StringVar(&calibration, "calibration", "", "run the model over the text in `FILE` (default: a built-in one)")
	fl.IntVar(&samples, "samples", calibrationSamples, "pieces of 512 tokens of that text at most")
	fl.IntVar(&threads, "threads", runtime.GOMAXPROCS(0), "threads that calibrate")
	return cmd
}

// calibrationSamples is how many pieces of a text a model is run over by default.
const calibrationSamples = 64

func (a *app) calibrationText(path string) (string, error) {
	b, err := readBounded(a.expand(path))
	if err != nil {
		return "", usererrf("give --calibration a text file of at most 16 MiB", "read calibration text: %v", err)
	}
	return string(b), nil
}

func (a *app) quantize(ctx context.Context, cfg ptq.Config) error {
	if cfg.Format == "" {
		return usererrf("give --format nvfp4, nvfp4-w4a4 or fp8", "--format is missing")
	}
	if cfg.MaxSamples < 1 || cfg.Threads < 1 {
		return usererrf("give positive numbers", "--samples and --threads are at least 1")
	}
	cfg.Hook = a.failpoint()
	u := a.ui()
	u.start("quantise")
	cfg.Progress = u.progress
	r, err := ptq.Quantize(ctx, cfg)
	if err != nil {
		u.abandon()
		return err
	}
	u.finish(fmt.Sprintf("%d weights", r.Quantised))
	if a.jsonOut {
		return a.printJSON(r)
	}
	var b strings.Builder
	as := string(r.Format)
	if r.Algo != "" {
		as += " (" + r.Algo + ")"
	}
	fmt.Fprintf(&b, "%s: %d weights as %s, %.2f bits each with scales; %d tensors kept\n", clean(r.Out), r.Quantised, as, r.Bits, r.Kept)
	fmt.Fprintf(&b, "  %s of weights became %s", size(r.BytesIn), size(r.BytesOut))
	if r.Calibrated > 0 {
		fmt.Fprintf(&b, "; inputs calibrated on %d tokens", r.Calibrated)
	}
	if r.Random {
		b.WriteString(" drawn at random, for want of a tokenizer.json")
	}
	fmt.Fprintf(&b, "\n  compare: repromill inspect %s --against %s\n", clean(r.Out), clean(cfg.Dir))
	_, err = fmt.Fprint(a.stdout, b.String())
	return err
}
