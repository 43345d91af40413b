package training

import (
	"regexp"
	"strconv"
	"strings"
)

// Network is what is published of a network that code names.
type Network struct {
	Params                  float64
	ItemFLOPs               float64 // forward, of one item of the usual size; 0 where it is 2 per parameter and token
	Tokens                  int     // tokens of one item, 0 where it has none
	Layers, Hidden, Context int
	Class                   Class
	Source                  string
}

const (
	tv   = "torchvision model weights metadata (operations at 224 pixels, multiply-adds doubled)"
	vit  = "arXiv 2010.11929 table 1, 16-pixel patches at 224"
	gpt2 = "openai/gpt-2 model card"
	bert = "arXiv 1810.04805"
)

// networks are keyed by lower-case names without separators. Operations are
// forward; publications count a multiplication with its addition as one, here
// they are two.
var networks = map[string]Network{
	"resnet18":        {11.7e6, 3.63e9, 0, 0, 0, 0, Vision, tv},
	"resnet34":        {21.8e6, 7.33e9, 0, 0, 0, 0, Vision, tv},
	"resnet50":        {25.6e6, 8.18e9, 0, 0, 0, 0, Vision, tv},
	"resnet101":       {44.5e6, 15.6e9, 0, 0, 0, 0, Vision, tv},
	"resnet152":       {60.2e6, 23.0e9, 0, 0, 0, 0, Vision, tv},
	"densenet121":     {8.0e6, 5.67e9, 0, 0, 0, 0, Vision, tv},
	"vgg16":           {138e6, 30.9e9, 0, 0, 0, 0, Vision, tv},
	"inceptionv3":     {27.2e6, 11.4e9, 0, 0, 0, 0, Vision, tv},
	"mobilenetv2":     {3.5e6, 0.60e9, 0, 0, 0, 0, Vision, tv},
	"efficientnetb0":  {5.3e6, 0.77e9, 0, 0, 0, 0, Vision, tv},
	"convnexttiny":    {28.6e6, 8.91e9, 0, 0, 0, 0, Vision, tv},
	"convnextbase":    {88.6e6, 30.7e9, 0, 0, 0, 0, Vision, tv},
	"swintiny":        {28.3e6, 8.98e9, 0, 0, 0, 0, Vision, tv},
	"swinsmall":       {49.6e6, 17.5e9, 0, 0, 0, 0, Vision, tv},
	"swinbase":        {87.8e6, 30.9e9, 0, 0, 0, 0, Vision, tv},
	"vittinypatch16":  {5.7e6, 2.51e9, 197, 12, 192, 197, Vision, vit},
	"vitsmallpatch16": {22e6, 9.2e9, 197, 12, 384, 197, Vision, vit},
	"vitbasepatch16":  {86e6, 35.1e9, 197, 12, 768, 197, Vision, vit},
	"vitbasepatch32":  {88e6, 8.8e9, 50, 12, 768, 50, Vision, vit},
	"vitlargepatch16": {304e6, 123e9, 197, 24, 1024, 197, Vision, vit},
	"vithugepatch14":  {632e6, 335e9, 257, 32, 1280, 257, Vision, vit},
	"detrresnet50":    {41e6, 172e9, 0, 0, 0, 0, Vision, "arXiv 2005.12872 table 1, multiply-adds doubled"},
	"gpt2":            {124e6, 0, 0, 12, 768, 1024, Pretraining, gpt2},
	"gpt2medium":      {355e6, 0, 0, 24, 1024, 1024, Pretraining, gpt2},
	"gpt2large":       {774e6, 0, 0, 36, 1280, 1024, Pretraining, gpt2},
	"gpt2xl":          {1.558e9, 0, 0, 48, 1600, 1024, Pretraining, gpt2},
	"bertbase":        {110e6, 0, 0, 12, 768, 512, Finetuning, bert},
	"bertlarge":       {340e6, 0, 0, 24, 1024, 512, Finetuning, bert},
	"robertabase":     {125e6, 0, 0, 12, 768, 512, Finetuning, "arXiv 1907.11692"},
	"robertalarge":    {355e6, 0, 0, 24, 1024, 512, Finetuning, "arXiv 1907.11692"},
	"t5small":         {60e6, 0, 0, 12, 512, 512, Finetuning, "arXiv 1910.10683"},
	"t5base":          {220e6, 0, 0, 24, 768, 512, Finetuning, "arXiv 1910.10683"},
	"t5large":         {770e6, 0, 0, 48, 1024, 512, Finetuning, "arXiv 1910.10683"},
	"distilbert":      {66e6, 0, 0, 6, 768, 512, Finetuning, "arXiv 1910.01108"},
}

// aliases are further spellings.
var aliases = []struct{ from, to string }{
	{"vitb16", "vitbasepatch16"}, {"vitl16", "vitlargepatch16"}, {"vith14", "vithugepatch14"}, {"vits16", "vitsmallpatch16"}, {"vitb32", "vitbasepatch32"},
	{"deittiny", "vittinypatch16"}, {"deitsmall", "vitsmallpatch16"}, {"deitbase", "vitbasepatch16"}, {"vitsmall", "vitsmallpatch16"}, {"vitbase", "vitbasepatch16"},
	{"vitlarge", "vitlargepatch16"}, {"swint", "swintiny"}, {"swins", "swinsmall"}, {"swinb", "swinbase"}, {"detrr50", "detrresnet50"},
}

var sizeRE = regexp.MustCompile(`(?i)(?:^|[-_/ .])(\d{1,4}(?:\.\d{1,2})?)([bm])(?:$|[-_/ .])`)

// Find returns what is published of a network by the name that code gives it
// ("facebook/opt-1.3b", "vit_base_patch16", "gpt2-xl"), false where nothing is.
// A size in a name is taken at its word.
func Find(name string) (Network, bool) {
	key := plain(name[strings.LastIndexByte(name, '/')+1:])
	if n, ok := networks[key]; ok {
		return n, true
	}
	best := ""
	for k := range networks {
		if strings.Contains(key, k) && len(k) > len(best) && len(k) >= 6 {
			best = k
		}
	}
	if best == "" {
		for _, a := range aliases {
			if strings.Contains(key, a.from) {
				best = a.to
				break
			}
		}
	}
	if best != "" {
		return networks[best], true
	}
	if m := sizeRE.FindStringSubmatch(name); m != nil {
		if v, err := strconv.ParseFloat(m[1], 64); err == nil && v > 0 {
			unit := 1e9
			if strings.EqualFold(m[2], "m") {
				unit = 1e6
			}
			return Network{Params: v * unit, Class: Finetuning, Source: "the size in the name " + strconv.Quote(name)}, true
		}
	}
	return Network{}, false
}

// datasets are numbers of training items by name.
var datasets = map[string]struct {
	items  float64
	source string
}{
	"imagenet": {1_281_167, "ILSVRC 2012 training set"}, "imagenet1k": {1_281_167, "ILSVRC 2012 training set"}, "ilsvrc": {1_281_167, "ILSVRC 2012 training set"},
	"cifar10": {50_000, "CIFAR training set"}, "cifar100": {50_000, "CIFAR training set"}, "mnist": {60_000, "MNIST training set"}, "fashionmnist": {60_000, "Fashion-MNIST training set"},
	"coco": {118_287, "COCO train2017"}, "svhn": {73_257, "SVHN training set"},
	"alpaca": {52_002, "tatsu-lab/stanford_alpaca"}, "mnli": {392_702, "GLUE"}, "sst2": {67_349, "GLUE"}, "qqp": {363_846, "GLUE"}, "qnli": {104_743, "GLUE"},
	"cola": {8_551, "GLUE"}, "mrpc": {3_668, "GLUE"}, "rte": {2_490, "GLUE"}, "stsb": {5_749, "GLUE"}, "squad": {87_599, "SQuAD 1.1"},
}

// Items is the number of training items of a data set by the name or path that
// code gives it.
func Items(name string) (items float64, source string, ok bool) {
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return r == '/' || r == '.' || r == '_' || r == '-' || r == ' ' || r == '{' || r == '}' || r == '$'
	})
	for i := len(parts) - 1; i >= 0; i-- {
		if d, found := datasets[parts[i]]; found {
			return d.items, d.source, true
		}
		if i > 0 {
			if d, found := datasets[parts[i-1]+parts[i]]; found {
				return d.items, d.source, true
			}
		}
	}
	return 0, "", false
}

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, s)
}
