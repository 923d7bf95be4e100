echo "${snakemake_params[word]} ${snakemake_input[0]} ${snakemake[threads]}" > "${snakemake_output[0]}"
