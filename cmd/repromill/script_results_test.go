package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// siteResults writes a dataset as a load test and an accuracy suite leave it:
// "siteresults DIR RUN MODEL SKU TOKENS_PER_S". Requests have the times of a
// server that gives so many tokens a second with 16 in flight.
func siteResults(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: siteresults DIR RUN MODEL SKU TOKENS_PER_S")
	}
	rate, err := strconv.ParseFloat(args[4], 64)
	ts.Check(err)
	d, err := dataset.Open(ts.MkAbs(args[0]), dataset.Config{Now: time.Now, Tool: "test"})
	ts.Check(err)
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	tx := d.Begin(args[1], at)
	common := schema.Common{Kind: schema.Measured}
	ts.Check(dataset.Add(tx, schema.RunRow{Common: common, Status: "succeeded", CreatedAt: at, TargetKind: "hf_model", TargetID: args[2], SKU: args[3], GPUs: schema.Int(1)}))
	ts.Check(dataset.Add(tx, schema.ServerRow{Common: common, ServerID: "s1", Arm: "fp8", Engine: "vllm", EngineVersion: "0.19.0", Model: args[2], Precision: "fp8", KVDtype: "fp8",
		SKU: args[3], GPUs: schema.Int(1), TP: schema.Int(1), ObservedAt: at}))
	const osl = 512
	for c, concurrency := range []int64{1, 4, 16, 64} {
		tpot := 909 / rate * (0.012 + 0.00035*float64(concurrency)) // weights are read once a step, the rest for each sequence
		e2e := osl * tpot
		for i := range 24 {
			phase := "steady"
			if i < 2 {
				phase = "ramp"
			}
			ts.Check(dataset.Add(tx, schema.RequestRow{Common: common, Suite: "throughput", Arm: "fp8", Cell: fmt.Sprintf("c%d", concurrency), RequestID: int64(i), Mode: "closed", ServerID: "s1",
				Concurrency: schema.Int(concurrency), Phase: phase, Status: "ok", ISL: schema.Int(1024), OSL: schema.Int(osl), E2ES: schema.Float(e2e * (1 + 0.02*float64((i+c)%3-1))), TTFTS: schema.Float(0.1)}))
		}
	}
	for i := range 20 {
		ts.Check(dataset.Add(tx, schema.SampleRow{Common: common, Suite: "mmlupro", ItemID: strconv.Itoa(i), Arm: "fp8", Model: args[2], Outcome: "correct",
			PromptTokens: schema.Int(240), OutputTokens: schema.Int(700 + 10*i)}))
	}
	ts.Check(dataset.Add(tx, schema.EstimateRow{Common: schema.Common{Kind: schema.Estimated}, Scope: "job", SKU: args[3], GPUs: 1, Quantity: "gpu_hours", Unit: "GPU h",
		P10: schema.Float(0.5), P50: schema.Float(1), P90: schema.Float(2), Measured: schema.Float(1.25), Ratio: schema.Float(1.25), Covered: schema.Bool(true)}))
	_, err = tx.Commit(context.Background())
	ts.Check(err)
}
