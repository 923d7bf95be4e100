word = "module"
def twice(text):
    return 2 * text

rule shell:
    output: "module/shell.txt"
    shell: "echo {word} {config[word]} {rule} > {output}"

rule script:
    output: "module/script.txt"
    params: word=twice(config["word"])
    script: "script.py"
