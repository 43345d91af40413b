"""Write golden.json: conversations as transformers renders them.

The templates are written for this test, in the constructs that the templates of
Llama, Qwen, Mistral and SmolLM use.
"""
import datetime
import json

from transformers.utils import chat_template_utils


class Noon(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 9, 12)


chat_template_utils.datetime = Noon

SYSTEM = [{"role": "system", "content": "Be brief."}]
TALK = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n4"}, {"role": "user", "content": "  And 3 + 3?  \n"}]
ODD = [{"role": "user", "content": "a\tb \\ \"q\" 'x' {{ 1 }} {% raw %} <b>&amp; ü 日本 😀"}]

TEMPLATES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "default-system": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "headers": """{{- bos_token }}
{%- if date_string is not defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- the system message comes first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
""",
    "alternating": """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}""",
    "thinking": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
    "lines": """{% for message in messages %}
  {% if message.role == 'user' %}
Q: {{ message.content }}
  {% else %}
A: {{ message.content | upper }}
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
A:
{%- endif %}
""",
}
NAMED = {"bos_token": "<s>", "eos_token": "</s>"}

out = []
for name, template in TEMPLATES.items():
    for which, messages in {"talk": TALK, "system": SYSTEM + TALK, "odd": ODD, "one": TALK[:1], "after": TALK[:2]}.items():
        for extra in ({}, {"enable_thinking": False, "add_generation_prompt": False}, {"enable_thinking": False}):
            if extra and which not in ("talk", "odd"):
                continue
            case = {"name": f"{name}/{which}/{sorted(extra)}", "template": template, "named": NAMED, "messages": messages, "extra": extra}
            try:
                compiled = chat_template_utils._compile_jinja_template(template)
                case["want"] = compiled.render(messages=messages, tools=None, documents=None, **{"add_generation_prompt": True, **extra}, **NAMED)
            except Exception as e:  # what the template raises
                case["error"] = str(e)
            out.append(case)
json.dump(out, open("golden.json", "w"), indent=0, ensure_ascii=False)
print(len(out), "cases,", sum("error" in c for c in out), "refused")
