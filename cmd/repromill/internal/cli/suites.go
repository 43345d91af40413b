package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/throughput"
)

// suiteFlags say with what a model is compared, and on which suites.
type suiteFlags struct {
	baselines, suites, serve []string
	margin, method           string
	alpha                    float64
	oneSided                 bool
	look, repeats            int
	questions, maxTokens     int
	orderSeed                int64
	tokens                   int64
	judge                    string
	arms                     string
	load                     throughput.Wish
	given                    func(string) bool // whether an option was given
}

var suiteFlagNames = []string{"baseline", "suites", "margin", "method", "alpha", "one-sided", "look", "repeats", "questions", "max-tokens", "order-seed", "token-budget", "serve", "judge", "arms",
	"load-isl", "load-osl", "load-concurrency", "load-rate", "load-requests", "load-rounds", "load-floor", "load-tp"}

func (f *suiteFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.baselines, "baseline", nil, "of a model: compare with this `MODEL`, of the hub or in a folder (repeatable)")
	fl.StringSliceVar(&f.suites, "suites", nil, "run these suites, as NAME or NAME:VARIANT, comma separated; those that can resolve the margin when left out")
	fl.StringVar(&f.margin, "margin", "1pt", "largest difference that counts as equal: 1pt, 1% or 0.01")
	fl.Float64Var(&f.alpha, "alpha", 0.05, "error rate per side of a comparison")
	fl.StringVar(&f.method, "method", "", "how to decide; see `repromill compare --help`")
	fl.BoolVar(&f.oneSided, "one-sided", false, "claim only that the model is not worse by the margin")
	fl.IntVar(&f.look, "look", 16, "questions between looks of a method that may stop early")
	fl.IntVar(&f.repeats, "repeats", 0, "answers to each question; the suite's usual number when left out")
	fl.IntVar(&f.questions, "questions", 0, "ask at most this many questions of each suite, the first of the random order")
	fl.IntVar(&f.maxTokens, "max-tokens", 0, "bound each answer to this many tokens, in all arms, in place of the suite's bound")
	fl.Int64Var(&f.orderSeed, "order-seed", 1, "seed of the order of the questions, and of sampling")
	fl.Int64Var(&f.tokens, "token-budget", 0, "stop a suite when it has used this many tokens, prompts included")
	fl.StringArrayVar(&f.serve, "serve", nil, "how an arm is served, to be put side by side: `NAME=COMMAND` (repeatable)")
	fl.StringVar(&f.judge, "judge", "", "endpoint of the model that judges, for suites that need one: `URL`")
	fl.StringVar(&f.arms, "arms", "side-by-side", "on a cluster: serve the arms of a suite `HOW`: side-by-side, or one-after-another where no node has GPUs for all of them")
	fl.IntSliceVar(&f.load.ISL, "load-isl", nil, "throughput: input tokens of the cells; the i-th goes with the i-th --load-osl (1024,8192)")
	fl.IntSliceVar(&f.load.OSL, "load-osl", nil, "throughput: output tokens of the cells (1024,1024)")
	fl.IntSliceVar(&f.load.Concurrencies, "load-concurrency", nil, "throughput: requests in flight, closed loop (1,8,64)")
	fl.Float64SliceVar(&f.load.Rates, "load-rate", nil, "throughput: requests per second, open loop, in place of --load-concurrency")
	fl.IntVar(&f.load.Requests, "load-requests", 0, "throughput: measured requests of each cell (ten for each place, and at least 100)")
	fl.IntVar(&f.load.Rounds, "load-rounds", 0, "throughput: starts of each arm's server (3)")
	fl.Float64SliceVar(&f.load.Floors, "load-floor", nil, "throughput: compare the best configurations that give each user so many tokens per second (30,60)")
	fl.IntSliceVar(&f.load.TP, "load-tp", nil, "throughput: tensor-parallel sizes to look for the best configuration in, beside the arms' own")
	f.given = fl.Changed
}

// wish is what the options ask for, nil if none was given.
func (f *suiteFlags) wish() (*accuracy.Wish, error) {
	if !slices.ContainsFunc(suiteFlagNames, f.given) && len(f.baselines) == 0 {
		return nil, nil
	}
	w := &accuracy.Wish{Baselines: f.baselines, Suites: f.suites, Method: f.method, OneSided: f.oneSided, Repeats: f.repeats,
		Questions: f.questions, MaxTokens: f.maxTokens, Tokens: f.tokens, Judge: f.judge != ""}
	switch f.arms {
	case "side-by-side":
	case "one-after-another":
		w.Placing = spec.OneAfterAnother
	default:
		return nil, usererrf("write --arms side-by-side or --arms one-after-another", "--arms %q is no way to serve them", f.arms)
	}
	if l := f.load; l.Requests < 0 || l.Rounds < 0 {
		return nil, usererrf("leave out what is to be as usual", "--load-requests and --load-rounds cannot be negative")
	}
	if slices.ContainsFunc(suiteFlagNames, func(n string) bool { return strings.HasPrefix(n, "load-") && f.given(n) }) {
		w.Load = &f.load
	}
	// What was left out may be a plan's to say.
	if f.given("margin") {
		var err error
		if w.Margin, err = points("margin", f.margin); err != nil {
			return nil, err
		}
		if w.Margin <= 0 {
			return nil, usererrf("give a margin such as 1pt", "--margin %s is not above 0", f.margin)
		}
	}
	if f.given("alpha") {
		w.Alpha = f.alpha
	}
	if f.given("look") {
		w.Look = f.look
	}
	if f.given("order-seed") {
		if w.Seed = f.orderSeed; w.Seed < 1 {
			return nil, usererrf("give a seed of 1 or more", "--order-seed %d", f.orderSeed)
		}
	}
	for _, word := range f.serve {
		name, command, ok := strings.Cut(word, "=")
		if !ok || name == "" || strings.Contains(name, " ") {
			return nil, usererrf("write NAME=COMMAND, such as 'fp8=vllm serve org/model'", "--serve %.60q has no name", word)
		}
		if w.Flags == nil {
			w.Flags = map[string]string{}
		}
		w.Flags[name] = command
	}
	return w, nil
}

// serveFlags say where the arms of suites are served.
type serveFlags struct {
	endpoints  []string
	servers    []string
	judgeModel string
	prices     []string
}

func (f *serveFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.endpoints, "endpoint", nil, "where an arm of the suites is served: `NAME=URL`, with the arm's name or its model (repeatable); keys come from REPROMILL_API_KEY_<NAME> or OPENAI_API_KEY")
	fl.StringArrayVar(&f.servers, "server", nil, "start the servers of arms without an endpoint: `[NAME=]HOW`, where HOW is vllm, sglang, repromill (the embedded engine; the default for small models in folders where there is no GPU), docker:IMAGE or a command with {port} and {model} (repeatable)")
	fl.StringVar(&f.judgeModel, "judge-model", "", "what the judge is called at its endpoint, where it serves several models")
	fl.StringArrayVar(&f.prices, "token-price", nil, "USD per million tokens of prompts and of answers, for --max-usd: `NAME=IN,OUT` (repeatable)")
}

func (f *serveFlags) serving(judge string) (accuracy.Serving, error) {
	s := accuracy.Serving{Judge: judge, JudgeModel: f.judgeModel}
	for _, word := range f.endpoints {
		name, url, ok := strings.Cut(word, "=")
		if !ok || name == "" || !strings.HasPrefix(url, "http") {
			return s, usererrf("write NAME=URL, such as fp8=http://host:8000/v1", "--endpoint %q names no endpoint", word)
		}
		if err := accuracy.CheckURL(url); err != nil {
			return s, err
		}
		if s.Endpoints == nil {
			s.Endpoints = map[string]string{}
		}
		if s.Endpoints[name] != "" {
			return s, usererrf("give each arm one endpoint", "--endpoint %s stands twice", name)
		}
		s.Endpoints[name] = url
	}
	for _, word := range f.servers {
		name, how := serverOf(word)
		if err := server.CheckTemplate(how); err != nil {
			return s, err
		}
		if s.Servers == nil {
			s.Servers = map[string]string{}
		}
		if s.Servers[name] != "" {
			return s, usererrf("say once how each arm is served", "--server %s stands twice", word)
		}
		s.Servers[name] = how
	}
	for _, word := range f.prices {
		name, list, _ := strings.Cut(word, "=")
		in, out, ok := strings.Cut(list, ",")
		a, err1 := strconv.ParseFloat(in, 64)
		b, err2 := strconv.ParseFloat(out, 64)
		if !ok || name == "" || err1 != nil || err2 != nil || !(a >= 0 && b >= 0) {
			return s, usererrf("write NAME=IN,OUT, such as fp8=0.3,1.2", "--token-price %q is no price", word)
		}
		if s.Prices == nil {
			s.Prices = map[string][2]float64{}
		}
		s.Prices[name] = [2]float64{a, b}
	}
	return s, nil
}

// armName is what an arm or a model may be called. A word of capitals before a
// "=" is an assignment of a command's environment.
var armName = regexp.MustCompile(`^[a-zA-Z0-9][\w./:-]*$`)

// serverOf cuts [NAME=]HOW; the name is "" for all arms.
func serverOf(word string) (name, how string) {
	name, how, ok := strings.Cut(word, "=")
	if ok && armName.MatchString(name) && name != strings.ToUpper(name) {
		return name, how
	}
	return "", word
}

// answersWords is a number of answers the way a person reads it.
func answersWords(n int) string { return fmt.Sprintf("%s answers", grouped(n)) }

// grouped writes 12032 as 12,032.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
