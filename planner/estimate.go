package planner

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/estimators/training"
	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/recipe"
	"github.com/repromill/repromill/planner/spec"
)

// work states what each run computes, as far as its command, the defaults of
// the code it starts and the words around it say. Estimates rest on these facts
// alone, so that they can be made again from the plan.
func (p *planning) work(choice *recipe.Choice) {
	for i := range p.plan.Runs {
		r := &p.plan.Runs[i]
		if c := choice.Commands[r.ID]; c != nil {
			w := &worker{p: p, c: c, known: map[string]spec.Fact{}}
			w.arguments()
			w.files()
			w.defaults()
			w.derive()
			if r.Route != "eval_checkpoint" && r.Route != "stored_result" { // a time beside those is that of the training
				w.stated()
			}
			if m := choice.Minimal; m != nil && m.Command == c && m.Seconds > 0 && r.GPUs.Min == 0 {
				w.setNumber(spec.WorkHours, m.Seconds/3600, spec.Published, c.Evidence)
				w.set(spec.WorkHoursSKU, "cpu", spec.Assumed)
			}
			r.Work = w.facts()
		}
	}
}

// workNames are the settings that say how much is computed, by the fact they
// state. Names are compared without dashes, underscores and section prefixes.
var workNames = map[string]string{
	"epochs": spec.WorkEpochs, "numepochs": spec.WorkEpochs, "nepochs": spec.WorkEpochs, "numtrainepochs": spec.WorkEpochs, "maxepochs": spec.WorkEpochs, "maxepoch": spec.WorkEpochs,
	"trainepochs": spec.WorkEpochs, "nepoch": spec.WorkEpochs, "epoch": spec.WorkEpochs,
	"steps": spec.WorkSteps, "maxsteps": spec.WorkSteps, "trainsteps": spec.WorkSteps, "numtrainsteps": spec.WorkSteps, "totalsteps": spec.WorkSteps, "maxiters": spec.WorkSteps, "iterations": spec.WorkSteps,
	"numiterations": spec.WorkSteps, "numtrainingsteps": spec.WorkSteps, "numsteps": spec.WorkSteps, "niters": spec.WorkSteps, "trainiters": spec.WorkSteps,
	"batchsize": spec.WorkBatchSome, "trainbatchsize": spec.WorkBatchSome, "bs": spec.WorkBatchSome, "batch": spec.WorkBatchSome,
	"perdevicetrainbatchsize": spec.WorkBatch, "pergputrainbatchsize": spec.WorkBatch, "devicebatchsize": spec.WorkBatch, "batchsizepergpu": spec.WorkBatch,
	"globalbatchsize": spec.WorkBatchAll, "totalbatchsize": spec.WorkBatchAll, "effectivebatchsize": spec.WorkBatchAll,
	"gradientaccumulationsteps": spec.WorkAccumulate, "gradaccumsteps": spec.WorkAccumulate, "accumiter": spec.WorkAccumulate, "accumulategradbatches": spec.WorkAccumulate,
	"blocksize": spec.WorkContext, "maxlength": spec.WorkContext, "maxseqlength": spec.WorkContext, "maxseqlen": spec.WorkContext, "seqlen": spec.WorkContext, "seqlength": spec.WorkContext,
	"contextlength": spec.WorkContext, "nctx": spec.WorkContext, "modelmaxlength": spec.WorkContext,
	"nlayer": spec.WorkLayers, "nlayers": spec.WorkLayers, "numlayers": spec.WorkLayers, "numhiddenlayers": spec.WorkLayers,
	"nembd": spec.WorkHidden, "dmodel": spec.WorkHidden, "hiddensize": spec.WorkHidden,
	"model": spec.WorkNetwork, "modelname": spec.WorkNetwork, "modelnameorpath": spec.WorkNetwork, "arch": spec.WorkNetwork, "basemodel": spec.WorkNetwork,
	"dataset": spec.WorkDataset, "datasetname": spec.WorkDataset, "dataname": spec.WorkDataset, "taskname": spec.WorkDataset, "datapath": spec.WorkDataset, "datadir": spec.WorkDataset, "cocopath": spec.WorkDataset,
	"imgsize": spec.WorkImageSize, "imagesize": spec.WorkImageSize, "inputsize": spec.WorkImageSize, "cropsize": spec.WorkImageSize, "resolution": spec.WorkImageSize,
	"dtype": spec.WorkPrecision, "precision": spec.WorkPrecision, "mixedprecision": spec.WorkPrecision,
}

// worker gathers the facts of one command; what is read first wins.
type worker struct {
	p     *planning
	c     *recipe.Command
	known map[string]spec.Fact
	order []string
}

func (w *worker) set(name, value string, kind spec.Kind, at ...spec.Evidence) {
	if _, ok := w.known[name]; ok || value == "" || len(value) > 200 {
		return
	}
	w.known[name] = spec.Fact{Name: name, Value: value, Kind: kind, Evidence: at}
	w.order = append(w.order, name)
}

func (w *worker) setNumber(name string, v float64, kind spec.Kind, at ...spec.Evidence) {
	w.set(name, strconv.FormatFloat(v, 'g', 6, 64), kind, at...)
}

// setting takes one setting of the program by its name.
func (w *worker) setting(name, value string, kind spec.Kind, at spec.Evidence) {
	name = name[strings.LastIndexByte(name, '.')+1:]
	key := strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
	value = strings.Trim(strings.TrimSpace(value), `'"`)
	switch fact := workNames[key]; {
	case fact == spec.WorkNetwork || fact == spec.WorkDataset:
		w.set(fact, value, kind, at)
	case fact == spec.WorkPrecision:
		w.set(fact, precisionWord(value), kind, at)
	case fact != "":
		if v, ok := product(value); ok {
			w.setNumber(fact, v, kind, at)
		}
	case value == "" || value == "true" || value == "True":
		switch key {
		case "fp16", "bf16", "fp8", "tf32":
			w.set(spec.WorkPrecision, key, kind, at)
		case "amp":
			w.set(spec.WorkPrecision, "fp16", kind, at)
		case "eval", "evaluate", "doeval", "test", "evalonly":
			if !w.has("--do_train") {
				w.set(spec.WorkMethod, "forward", kind, at)
			}
		}
	}
	if key == "lorar" || key == "lorarank" {
		w.set(spec.WorkMethod, "lora", kind, at)
	}
	if key == "bits" && value == "4" || key == "loadin4bit" {
		// 4-bit weights make it the other kind of adapter.
		w.order = slices.DeleteFunc(w.order, func(n string) bool { return n == spec.WorkMethod })
		delete(w.known, spec.WorkMethod)
		w.set(spec.WorkMethod, "lora-4bit", kind, at)
	}
}

func (w *worker) has(arg string) bool {
	for _, a := range w.c.Args {
		if a == arg {
			return true
		}
	}
	return false
}

func precisionWord(s string) string {
	switch strings.ToLower(s) {
	case "bf16", "bfloat16", "bf16-mixed":
		return "bf16"
	case "fp16", "float16", "16", "16-mixed", "half":
		return "fp16"
	case "fp32", "float32", "32", "no":
		return "fp32"
	case "fp8":
		return "fp8"
	}
	return ""
}

// product reads "600000", "1e6", "600_000" and "5 * 8".
func product(s string) (float64, bool) {
	v := 1.0
	for _, f := range strings.Split(strings.ReplaceAll(s, "_", ""), "*") {
		x, err := strconv.ParseFloat(strings.TrimSpace(f), 64)
		if err != nil || !(x > 0) || x > 1e18 {
			return 0, false
		}
		v *= x
	}
	return v, v < 1e18
}

// arguments reads "--name value", "--name=value" and "section.name=value".
func (w *worker) arguments() {
	at := w.c.Evidence
	args := w.c.Args
	for i := 0; i < len(args); i++ {
		name, value, eq := strings.Cut(args[i], "=")
		switch {
		case eq:
			w.setting(strings.TrimLeft(name, "-+"), value, spec.Published, at)
		case strings.HasPrefix(args[i], "-") && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-"):
			w.setting(strings.TrimLeft(args[i], "-"), args[i+1], spec.Published, at)
			i++
		case strings.HasPrefix(args[i], "-"):
			w.setting(strings.TrimLeft(args[i], "-"), "", spec.Published, at)
		}
	}
}

// files reads the settings of Python files that the command names as arguments.
func (w *worker) files() {
	for _, a := range w.c.Args {
		if m := w.p.in.Repo.Modules[strings.TrimPrefix(a, "./")]; m != nil && strings.HasSuffix(a, ".py") && a != w.c.Entry {
			w.assigns(m, strings.TrimPrefix(a, "./"))
		}
	}
}

func (w *worker) assigns(m *python.Module, file string) {
	for _, name := range slices.Sorted(maps.Keys(m.Assigns)) {
		w.setting(name, m.Assigns[name].Text, spec.Published, spec.Evidence{File: file, Line: m.Assigns[name].Line})
	}
}

// defaults reads what the program takes when it is not told.
func (w *worker) defaults() {
	m := w.p.in.Repo.Modules[w.c.Entry]
	if m == nil {
		return
	}
	for _, f := range m.Flags {
		if f.Default == "" || f.Action == "store_true" || strings.EqualFold(f.Default, "none") {
			continue
		}
		w.setting(strings.TrimLeft(f.Names[len(f.Names)-1], "-"), f.Default, spec.Published, spec.Evidence{File: w.c.Entry, Line: f.Line})
	}
}

// derive turns names into numbers.
func (w *worker) derive() {
	if f, ok := w.known[spec.WorkDataset]; ok && w.known[spec.WorkMethod].Value != "forward" {
		if n, source, found := training.Items(f.Value); found {
			w.setNumber(spec.WorkItems, n, spec.Published, spec.Evidence{Quote: source})
		}
	}
	layers, hidden := w.number(spec.WorkLayers), w.number(spec.WorkHidden)
	if net, ok := training.Find(w.known[spec.WorkNetwork].Value); ok {
		at := spec.Evidence{Quote: net.Source}
		w.setNumber(spec.WorkParameters, net.Params, spec.Published, at)
		w.image(net)
		if net.Layers > 0 && layers == 0 {
			w.setNumber(spec.WorkLayers, float64(net.Layers), spec.Published, at)
			w.setNumber(spec.WorkHidden, float64(net.Hidden), spec.Published, at)
		}
		w.set(spec.WorkClass, string(net.Class), spec.Derived, at)
	} else if layers > 0 && hidden > 0 && w.number(spec.WorkContext) > 0 {
		params := 12 * layers * hidden * hidden
		w.setNumber(spec.WorkParameters, params, spec.Derived, spec.Evidence{Quote: "12 · layers · width², without embeddings"})
		if params >= 50e6 {
			w.set(spec.WorkClass, string(training.Pretraining), spec.Derived)
		}
	}
}

// image takes the operations of an image where its size is known: published ones
// are at 224 pixels and grow with the area.
func (w *worker) image(net training.Network) {
	if net.ItemFLOPs == 0 {
		return
	}
	size := w.number(spec.WorkImageSize)
	if size == 0 && strings.Contains(strings.ToLower(w.known[spec.WorkDataset].Value), "imagenet") {
		size = 224
	}
	if size >= 16 && size <= 4096 {
		w.setNumber(spec.WorkItemFLOP, net.ItemFLOPs*size*size/(224*224), spec.Derived, spec.Evidence{Quote: fmt.Sprintf("%s, at %g pixels", net.Source, size)})
	}
}

func (w *worker) number(name string) float64 {
	v, _ := strconv.ParseFloat(w.known[name].Value, 64)
	return v
}

var sentenceRE = regexp.MustCompile(`[.!?]\s+[A-Z(]|\n\s*\n|\n\s*[-*] `)

// stated reads the time and hardware that the words around the command state.
// The words of another command are not taken for it: only the paragraphs that
// the recipe found beside this one count.
func (w *worker) stated() {
	if w.known[spec.WorkMethod].Value == "forward" {
		return
	}
	text := w.c.Context
	for from := 0; from < len(text); {
		end := len(text)
		if m := sentenceRE.FindStringIndex(text[from:]); m != nil {
			end = from + m[0] + 1
		}
		if w.takes(text[from:end]) {
			return
		}
		from = end + 1
	}
	w.takes(text) // the hardware before the command, the time after it
}

// takes reads a time with its hardware.
func (w *worker) takes(text string) bool {
	s, counted, ok := training.ParseStated(text)
	if !ok || (!counted && w.c.GPUs > 1) {
		return false
	}
	at := w.c.Evidence
	at.Quote = strings.ToValidUTF8(s.Source[:min(len(s.Source), 200)], "")
	w.setNumber(spec.WorkHours, s.Hours, spec.Published, at)
	w.set(spec.WorkHoursSKU, s.SKU.ID, spec.Published, at)
	w.setNumber(spec.WorkHoursGPUs, float64(s.GPUs), spec.Published, at)
	return true
}

// facts are in the order in which they were found out.
func (w *worker) facts() []spec.Fact {
	out := make([]spec.Fact, 0, len(w.order))
	for _, name := range w.order {
		out = append(out, w.known[name])
	}
	return out
}
