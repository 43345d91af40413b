package claim

// testItems are well-known data sets with the number of items on which results
// are usually reported; 0 where reports differ. Sizes are those stated on the
// data sets' own pages.
var testItems = map[string]int{
	"CIFAR-10": 10_000, "CIFAR-100": 10_000, "MNIST": 10_000, "Fashion-MNIST": 10_000, "SVHN": 26_032, "ImageNet": 50_000, "STL-10": 8_000,
	"AIME24": 30, "AIME25": 30, "AIME 2024": 30, "AIME 2025": 30, "GSM8K": 1_319, "HumanEval": 164, "MMLU": 14_042, "MMLU-Pro": 12_032, "MATH-500": 500, "GPQA Diamond": 198,
	"MRPC": 408, "SST-2": 872, "MNLI": 9_815, "QNLI": 5_463, "RTE": 277, "CoLA": 0, "STS-B": 0, "COCO": 0, "Cora": 1_000, "Citeseer": 1_000, "PubMed": 1_000,
	"WikiText-103": 0, "WikiText-2": 0, "WikiText2": 0, "LibriSpeech": 0, "PTB": 0, "OpenWebText": 0, "LAION": 0, "SQuAD": 0, "ADE20K": 0, "Cityscapes": 0, "KITTI": 0,
	"LMSYS-Chat-1M": 0, "ShareGPT": 0, "CartPole-v1": 0, "Iris": 0, "Tiny ImageNet": 10_000, "sMNIST": 10_000, "C4": 0, "LongBench": 0, "RULER": 0, "GLUE": 0, "D4RL": 0,
	"QQP": 40_430, "WNLI": 71, "SST": 0, "BoolQ": 3_270, "PIQA": 1_838, "HellaSwag": 10_042, "WinoGrande": 1_267, "ARC-Challenge": 1_172, "ARC-Easy": 2_376, "OpenBookQA": 500, "CommonsenseQA": 1_221,
	"LAMBADA": 5_153, "RACE": 0, "TriviaQA": 0, "Natural Questions": 0, "HotpotQA": 0, "TruthfulQA": 0, "MBPP": 0, "XSum": 0, "CNN/DailyMail": 0, "IMDB": 25_000, "AG News": 7_600, "Wiki2": 0,
	"ImageNet-100": 5_000, "Food-101": 25_250, "Places365": 0, "iNaturalist": 0, "Kinetics-400": 0, "UCF101": 0, "ModelNet40": 2_468, "VQAv2": 0, "GQA": 0, "Flickr30k": 0, "CelebA": 0, "CelebA-HQ": 0,
	"FFHQ": 0, "AFHQv2": 0, "LSUN": 0, "ShapeNet": 0, "ScanNet": 0, "nuScenes": 0, "ogbn-arxiv": 48_603, "ogbg-molhiv": 0, "ZINC": 0, "QM9": 0, "PCQM4Mv2": 0, "ETTh1": 0, "ETTh2": 0, "ETTm1": 0, "ETTm2": 0,
	"LJSpeech": 0, "VCTK": 0, "VoxCeleb": 0, "enwik8": 0, "text8": 0, "CoNLL-2003": 0, "WMT14": 0,
}

// datasetByName finds the usual spelling of a squashed name.
var datasetByName = func() map[string]string {
	m := map[string]string{}
	for name := range testItems {
		m[squash(name)] = name
	}
	return m
}()

// Dataset is the first well-known data set that a text names, in its usual
// spelling, or "".
func Dataset(text string) string {
	ws := words(text)
	for i := range ws {
		if end := longest(text, ws, i, 4, func(n string) bool { return datasetByName[n] != "" }); end > i {
			return datasetByName[squash(text[ws[i][0]:ws[end-1][1]])]
		}
	}
	return ""
}

// TestItems is the number of items on which results for the data set are
// usually reported, or 0.
func TestItems(dataset string) int { return testItems[dataset] }
